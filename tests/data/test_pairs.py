"""Finding the pairs of data sets and of folders, good and bad."""

from pathlib import Path

import pytest

from timfuse.data import Pair, find_pairs, match_pairs
from timfuse.data.pairs import find_fused, named_folders
from timfuse.runtime.errors import UserError


def touch(root: Path, *files: str) -> Path:
    """Make empty files: pairing reads names alone."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("c", "a", "b"):
        touch(tmp_path, f"ir/{name}.png", f"vis/{name}.bmp")
    return touch(tmp_path, "ir/Thumbs.db", "ir/._a.png")


def names(pairs: list[Pair]) -> list[str]:
    return [pair.name for pair in pairs]


def test_pairs_are_found_by_stem_and_sorted(root: Path) -> None:
    pairs = find_pairs(root)
    assert names(pairs) == ["a", "b", "c"]
    assert pairs[0] == Pair("a", root / "ir" / "a.png", root / "vis" / "a.bmp")


def test_a_list_chooses_and_an_unlisted_orphan_does_not_matter(root: Path) -> None:
    touch(root, "ir/orphan.png")
    (root / "some.txt").write_text("b.png\n\na\n")
    assert names(find_pairs(root, split="some")) == ["a", "b"]
    (root / "some.txt").write_text("b\nmissing\n")
    with pytest.raises(UserError, match=r"some\.txt names missing"):
        find_pairs(root, split="some")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfb\r\na\r\n",
        b"./vis/b.bmp\n./vis/a.bmp\n",
        b"ir/a.png vis/a.bmp\nir/b.png\tvis/b.bmp\n",
        b"C/ir/a\n b \n\n",
    ],
)
def test_a_list_may_have_a_mark_paths_and_two_columns(root: Path, content: bytes) -> None:
    (root / "some.txt").write_bytes(content)
    assert names(find_pairs(root, split="some")) == ["a", "b"]


def test_a_list_in_another_encoding(root: Path) -> None:
    (root / "some.txt").write_text("a\n", encoding="utf-16")
    with pytest.raises(UserError, match=r"some\.txt is no text in UTF-8; save it in UTF-8$"):
        find_pairs(root, split="some")


def test_the_sources_of_a_pair_are_two_files(root: Path) -> None:
    (root / "other").symlink_to(root / "ir")
    for first, second in (("ir", "ir"), ("ir/a.png", "other/a.png"), ("ir", "other")):
        with pytest.raises(UserError, match=r"both sources of a are the file .*ir/a\.png; name two different ones"):
            match_pairs(root / first, root / second)
    with pytest.raises(UserError, match="both sources of a are the file"):
        find_pairs(root, folders=("ir", "other"))


@pytest.mark.parametrize("files", ["{part}/ir/x.png {part}/vi/x.png", "infrared/{part}/x.jpg visible/{part}/x.jpg"])
def test_of_a_divided_set_one_part_is_taken(tmp_path: Path, files: str) -> None:
    for part in ("train", "test"):
        touch(tmp_path, *files.format(part=part).replace("x.", f"{part}.").split())
    assert names(find_pairs(tmp_path, split="test")) == ["test"]
    assert names(find_pairs(tmp_path)) == ["train"]
    with pytest.raises(UserError, match=r"no infrared-visible pairs; looked for val/ir/NAME \+ val/vis/NAME"):
        find_pairs(tmp_path, split="val")


def test_a_folder_of_a_part_goes_before_a_list(root: Path) -> None:
    touch(root, "val/ir/x.png", "val/vis/x.png")
    (root / "val.txt").write_text("a\n")
    assert names(find_pairs(root, split="val")) == ["x"]
    assert names(find_pairs(root)) == ["a", "b", "c"]


def test_bad_folders(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_pairs(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no mri-ct pairs; looked for mri/NAME \+ ct/NAME, mri/NAME \+ other/NAME"):
        find_pairs(root, "mri-ct")
    with pytest.raises(UserError, match=r"task must be one of infrared-visible.*did you mean 'mri-ct'"):
        find_pairs(root, "mri-cd")
    with pytest.raises(UserError, match=r"not divided: there is neither a folder test/ nor test\.txt"):
        find_pairs(root, split="test")
    touch(tmp_path, "new/ir/x.png").joinpath("new/vis").mkdir()
    with pytest.raises(UserError, match=r"and 2 more and found ir/NAME alone$"):
        find_pairs(tmp_path / "new")


@pytest.mark.parametrize("folders", [("xray", "beam/neutron"), ("./xray/", "beam//neutron")])
def test_named_folders_hold_the_pairs_whatever_the_task(root: Path, folders: tuple[str, str]) -> None:
    touch(root, "xray/x.png", "beam/neutron/x.tif", "xray/y.png", "beam/neutron/y.tif")
    expected = [Pair(name, root / f"xray/{name}.png", root / f"beam/neutron/{name}.tif") for name in "xy"]
    for task in ("xray-neutron", "infrared-visible"):
        assert find_pairs(root, task, folders=folders) == expected
    (root / "val.txt").write_text("y\n")
    assert find_pairs(root, "xray-neutron", "val", folders=folders) == expected[1:]
    assert names(find_pairs(root, folders=("vis", "ir"))) == ["a", "b", "c"]
    touch(root, "xray/orphan.png")
    with pytest.raises(UserError, match=r"xray/orphan\.png without a partner"):
        find_pairs(root, "xray-neutron", folders=folders)


def test_an_image_of_both_sources_in_the_data_folder_itself(tmp_path: Path) -> None:
    touch(tmp_path, "x.png", "sub/x.png")
    pairs = find_pairs(tmp_path, "mine", folders=(".", "sub"))
    assert pairs == [Pair("x", tmp_path / "x.png", tmp_path / "sub/x.png")]


@pytest.mark.parametrize("files", ["{part}/xray/x.png {part}/neutron/x.png", "xray/{part}/x.png neutron/{part}/x.png"])
def test_named_folders_of_a_divided_set(tmp_path: Path, files: str) -> None:
    for part in ("train", "test"):
        touch(tmp_path, *files.format(part=part).replace("x.png", f"{part}.png").split())
    folders = ("xray", "neutron")
    assert names(find_pairs(tmp_path, "mine", "test", folders=folders)) == ["test"]
    assert names(find_pairs(tmp_path, "mine", folders=folders)) == ["train"]


@pytest.mark.parametrize("split", [None, "train"])
def test_bad_named_folders(root: Path, split: str | None) -> None:
    with pytest.raises(UserError, match=r"the folder .*/xray does not exist; check its name"):
        find_pairs(root, "mine", split, folders=("ir", "xray"))
    (root / "xray").mkdir()
    with pytest.raises(UserError, match=r"/xray holds no image; put \.png"):
        find_pairs(root, "mine", split, folders=("xray", "ir"))
    touch(root, "xray/other.png")
    (root / "train.txt").write_text("a\n")
    with pytest.raises(UserError, match=r"ir/a\.png.* without a partner"):
        find_pairs(root, "mine", split, folders=("xray", "ir"))
    with pytest.raises(UserError, match="both sources are in 'ir/'; name two folders"):
        find_pairs(root, "mine", split, folders=("ir/", "ir"))
    for folder in (str(root / "ir"), "../ir", "i*", "NAME"):
        with pytest.raises(UserError, match="cannot be a folder of a source; name one below the data folder"):
            find_pairs(root, "mine", split, folders=("vis", folder))


def test_named_folders_are_halves_of_different_parts(tmp_path: Path) -> None:
    touch(tmp_path, "xray/x.png", "train/neutron/x.png")
    with pytest.raises(UserError, match=r"holds no mine pairs; looked for xray/NAME \+ neutron/NAME and found xray/N"):
        find_pairs(tmp_path, "mine", folders=("xray", "neutron"))


def test_two_layouts_in_one_folder_are_ambiguous(root: Path) -> None:
    touch(root, "infrared/a.png", "visible/a.png")
    with pytest.raises(UserError, match=r"as ir/NAME \+ vis/NAME and as infrared/NAME \+ visible/NAME; move"):
        find_pairs(root)


def test_orphans_on_both_sides_are_named(root: Path) -> None:
    touch(root, "ir/left.png", *(f"vis/right{index}.png" for index in range(4)))
    with pytest.raises(UserError, match=r"ir/left\.png, vis/right0\.png, vis/right1\.png and 2 more without a partner"):
        find_pairs(root)


def test_names_that_all_differ_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "ir/ir_1.png", "vis/vis_1.png")
    with pytest.raises(UserError, match=r"ir/ir_1\.png, vis/vis_1\.png without a partner"):
        find_pairs(tmp_path)


def test_one_stem_twice(root: Path) -> None:
    touch(root, "vis/a.png")
    with pytest.raises(UserError, match=r"vis holds both a\.bmp and a\.png"):
        find_pairs(root)
    with pytest.raises(UserError, match=r"vis holds both a\.bmp and a\.png"):
        match_pairs(root / "ir", root / "vis")


def test_two_files_pair_whatever_their_names(root: Path) -> None:
    first, second = root / "ir" / "a.png", root / "vis" / "b.bmp"
    assert match_pairs(str(first), str(second)) == [Pair("a", first, second)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("ir", "vis", "abc"),
        ("ir/", "vis/*.bmp", "abc"),
        ("ir/[ab].png", "v*/[ab].*", "ab"),
        ("ir/a.png", "**/a.bmp", "a"),
    ],
)
def test_folders_and_patterns_pair_by_stem(root: Path, first: str, second: str, expected: str) -> None:
    pairs = match_pairs(f"{root}/{first}", f"{root}/{second}")
    assert pairs == [Pair(name, root / f"ir/{name}.png", root / f"vis/{name}.bmp") for name in expected]


def test_brackets_in_a_name_are_no_pattern_where_the_file_exists(tmp_path: Path) -> None:
    touch(tmp_path, "a[1]/x.png", "b/x.png")
    assert names(match_pairs(tmp_path / "a[1]", tmp_path / "b")) == ["x"]


def test_what_does_not_match_is_counted_and_named(root: Path) -> None:
    touch(root, "ir/left.png", *(f"vis/right{index}.png" for index in range(4)))
    with pytest.raises(UserError) as error:
        match_pairs(f"{root}/ir", f"{root}/vis")
    assert str(error.value) == (
        f"the images do not pair by name: {root}/ir has 1 without a partner (left.png), {root}/vis has 4 without "
        "a partner (right0.png, right1.png, right2.png and 1 more); rename or remove them"
    )
    with pytest.raises(
        UserError, match=r"vis has 6 without a partner \(b\.bmp, c\.bmp, right0\.png and 3 more\); rename"
    ):
        match_pairs(f"{root}/ir/a.png", f"{root}/vis")


def test_what_is_not_there_says_so(root: Path) -> None:
    with pytest.raises(UserError, match=r"there is no image .*nowhere; check the path"):
        match_pairs(root / "nowhere", root / "vis")
    with pytest.raises(UserError, match=r"there is no image .*/x\*; check the path"):
        match_pairs(root / "ir", root / "vis" / "x*")
    (root / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no image; put \.png"):
        match_pairs(root / "ir", root / "empty")


def test_fused_images_are_matched_by_stem(root: Path) -> None:
    touch(root, "out/b.jpg", "out/a.png", "out/c.png", "out/sheet.png")
    names = [pair.name for pair in find_pairs(root)]
    assert find_fused(root / "out", names) == [root / "out" / file for file in ("a.png", "b.jpg", "c.png")]
    touch(root, "other/b.png")
    with pytest.raises(UserError, match=r"other lacks the fused images of 2 of 3 pairs \(a, c\); fuse"):
        find_fused(root / "other", names)
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        find_fused(root / "nowhere", names)


def test_fused_images_come_in_the_order_of_the_names(root: Path) -> None:
    touch(root, "out/b.jpg", "out/a.png", "out/c.tif")
    files = [root / "out" / file for file in ("c.tif", "a.png", "b.jpg", "a.png")]
    assert find_fused(root / "out", ["c", "a", "b", "a"]) == files
    assert find_fused(root / "out", []) == []


def test_fused_images_that_are_not_one_each(root: Path) -> None:
    touch(root, "out/a.png", "out/a.jpg")
    with pytest.raises(UserError, match=r"out holds both a\.jpg and a\.png"):
        find_fused(root / "out", ["a"])
    with pytest.raises(
        UserError, match=r"ir lacks the fused images of 4 of 5 pairs \(v, w, x and 1 more\); fuse these"
    ):
        find_fused(root / "ir", [*"avwxy"])
    (root / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no image; put \.png"):
        find_fused(root / "empty", ["a"])
    with pytest.raises(UserError, match=r"a\.png does not exist"):
        find_fused(root / "ir" / "a.png", ["a"])


def test_folders_have_the_names_that_are_given_or_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touch(tmp_path, "runs/mine/x"))
    monkeypatch.setenv("HOME", "/home/of")
    arguments = ["runs/mine", "other=runs/mine/", "far/away/", "half=~/fused", "~/more", "=last", "a=b=c", "."]
    assert list(named_folders(arguments).items()) == [
        ("mine", Path("runs/mine")),
        ("other", Path("runs/mine")),
        ("away", Path("far/away")),
        ("half", Path("/home/of/fused")),
        ("more", Path("/home/of/more")),
        ("last", Path("last")),
        ("a", Path("b=c")),
        (tmp_path.name, Path()),
    ]
    assert named_folders([]) == {}


def test_a_folder_with_an_equals_sign_in_its_name_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touch(tmp_path, "runs/lr=0.1/x", "lr=1/x"))
    assert named_folders(["runs/lr=0.1", "lr=1", "best=lr=1"]) == {
        "lr=0.1": Path("runs/lr=0.1"),
        "lr=1": Path("lr=1"),
        "best": Path("lr=1"),
    }


@pytest.mark.parametrize("arguments", [["a/x", "b/x"], ["x=a", "x=b"], ["x=a", "b/x/"], ["a", "./a"]])
def test_two_methods_of_one_name(arguments: list[str]) -> None:
    with pytest.raises(UserError, match=r"^two methods are called [xa]; name them with NAME=FOLDER$"):
        named_folders(arguments)
