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
    with pytest.raises(UserError, match=r" more and found ir/NAME alone; name its two folders with --sources DIR DIR"):
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
    touch(tmp_path, "ir/man.png", "vis/tree.png")
    with pytest.raises(
        UserError, match=r"ir/man\.png, vis/tree\.png without a partner of the same name or number; add"
    ):
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


@pytest.mark.parametrize(
    ("files", "first", "second", "expected"),
    [
        ("x-01-A.jpg x-01-B.jpg x-02-A.jpg x-02-B.jpg", "*-A.jpg", "*-B.jpg", "x-01 x-02"),
        ("s1/t.png s1/rgb.png s2/t.png s2/rgb.png", "*/t.png", "*/rgb.png", "s1 s2"),
        ("s1/t.png s1/rgb.png", "*/t.png", "*/rgb.png", "s1"),
        ("a/x/t.png a/x/v.png b/t.png b/v.png t.png v.png", "**/t.png", "**/v.png", "t a_x b"),
        ("p1/x-A.png p1/x-B.png p2/x-A.png p2/x-B.png", "p?/*-A.png", "p[12]/*-B.*", "1_x 2_x"),
        ("in/Cave/Cave_A.jpg in/Cave/Cave_B.jpg", "in/*/*_A.jpg", "in/*/*_B.jpg", "Cave"),
        ("v1.5/t.png v1.5/v.png v1.6/t.png v1.6/v.png", "v*/t.png", "v*/v.png", "1.5 1.6"),
        ("s[1]/A1.png s[1]/B1.png", "s[1]/A*.png", "s[1]/B*.png", "1"),
        ("ir.png vis.png ir2.png vis2.jpg", "ir*.*", "vis*.*", "ir 2"),
    ],
)
def test_patterns_pair_by_what_their_wildcards_stand_for(
    tmp_path: Path, files: str, first: str, second: str, expected: str
) -> None:
    touch(tmp_path, *files.split())
    pairs = match_pairs(tmp_path / first, tmp_path / second)
    assert names(pairs) == expected.split()
    assert all(pair.first.parent == pair.second.parent for pair in pairs)


def test_patterns_go_on_pairing_by_whole_names(tmp_path: Path) -> None:
    """Where whole names pair, what the wildcards stand for changes neither pairs nor names."""
    touch(tmp_path, *(f"{side}/img_{name}.png" for side in ("ir", "vis") for name in "ab"), "ir/x/c.png", "vis/y/c.png")
    assert names(match_pairs(tmp_path / "ir/img_*.png", tmp_path / "vis/*_*.png")) == ["img_a", "img_b"]
    assert names(match_pairs(tmp_path / "i*/x/c.png", tmp_path / "v*/y/c.png")) == ["c"]


def test_wildcards_that_do_not_pair(tmp_path: Path) -> None:
    touch(tmp_path, "s1/t.png", "s1/v.png", "s2/t.png", "s3/v.png")
    with pytest.raises(UserError) as error:
        match_pairs(tmp_path / "*/t.png", tmp_path / "*/v.png")
    assert str(error.value) == (
        f"the images do not pair by wildcards: {tmp_path}/*/t.png has 1 without a partner (t.png), {tmp_path}/*/v.png "
        "has 1 without a partner (v.png); rename or remove them"
    )
    touch(tmp_path, "u/a-1/x.png", "u/a/1-x.png", "u/a-1/y.png", "u/a/1-y.png")
    with pytest.raises(UserError, match="do not pair by name, wildcards or number: "):
        match_pairs(tmp_path / "s1/t*.png", tmp_path / "u/a/1-*.png")
    touch(tmp_path, "w/a/a/x.png", "w/a/a/y.png", "w/a/b/x.png", "w/a/b/y.png", "w/b/a/x.png", "w/b/a/y.png")
    touch(tmp_path, "w/a_b/a/x.png", "w/a_b/a/y.png", "w/a/b_a/x.png", "w/a/b_a/y.png")
    with pytest.raises(UserError, match=r"w/a/b_a/x\.png and .*w/a_b/a/x\.png would both be called a_b_a; rename"):
        match_pairs(tmp_path / "w/*/*/x.png", tmp_path / "w/*/*/y.png")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("FLIR_0001 FLIR_0002", "0001_vis 0002_vis", "FLIR_0001 FLIR_0002"),
        ("1 2 10", "001 010 002", "1 10 2"),
        ("cam1_07 cam1_08", "Cam2_8 cam2_7", "cam1_07 cam1_08"),
        ("Man tree", "man Tree", "Man tree"),
    ],
)
def test_numbers_and_case_pair_where_names_do_not(tmp_path: Path, first: str, second: str, expected: str) -> None:
    touch(tmp_path, *(f"ir/{name}.jpg" for name in first.split()), *(f"vis/{name}.png" for name in second.split()))
    pairs = find_pairs(tmp_path)
    assert names(pairs) == expected.split()
    assert pairs == match_pairs(tmp_path / "ir", tmp_path / "vis")
    digits = [[int("".join(filter(str.isdigit, file.stem))[-1:] or 0) for file in pair[1:3]] for pair in pairs]
    assert all(one % 10 == other % 10 for one, other in digits)
    fused = [tmp_path / "vis" / pair.second.name for pair in pairs]
    assert find_fused(tmp_path / "vis", expected.split()) == fused


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("man_01 tree_02", "man_1 tree_2"),  # no series: another number may be meant
        ("10_1 11_2", "10_a1 11_a2"),
        ("0001_cam1 0002_cam1", "0001_cam2 0002_cam2"),  # the last number is that of the camera
        ("1 01", "001 x1"),
        ("a b", "c d"),
    ],
)
def test_numbers_that_are_not_clear_do_not_pair(tmp_path: Path, first: str, second: str) -> None:
    touch(tmp_path, *(f"ir/{name}.jpg" for name in first.split()), *(f"vis/{name}.png" for name in second.split()))
    with pytest.raises(UserError, match=r"ir/.*, vis/.* without a partner of the same name or number; add"):
        find_pairs(tmp_path)
    with pytest.raises(UserError, match=r"the images do not pair by name or number: .*; rename or remove them"):
        match_pairs(tmp_path / "ir", tmp_path / "vis")


def test_a_number_without_a_partner_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "ir/FLIR_1.jpg", "ir/FLIR_2.jpg", "vis/1_v.png", "vis/3_v.png")
    with pytest.raises(UserError, match=r"ir/FLIR_2\.jpg, vis/3_v\.png without a partner of the same name; add"):
        find_pairs(tmp_path)
    with pytest.raises(UserError, match=r"do not pair by number: .*\(FLIR_2\.jpg\), .*vis has 1 .*\(3_v\.png\);"):
        match_pairs(tmp_path / "ir", tmp_path / "vis")


def test_a_list_names_numbered_pairs_like_the_first(tmp_path: Path) -> None:
    touch(tmp_path, "ir/FLIR_1.jpg", "ir/FLIR_2.jpg", "vis/1_v.png", "vis/2_v.png")
    (tmp_path / "val.txt").write_text("FLIR_2\n")
    assert names(find_pairs(tmp_path, split="val")) == ["FLIR_2"]


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "ir/a.dcm", "ir/b.png", "vis/a.png", "vis/b.png", "ir/Thumbs.db", "ir/.a.npy", "ir/c.mat")
    words = r"ir/a\.dcm is there, but timfuse does not read \.dcm; save it as \.png, .* or \.ppm$"
    with pytest.raises(UserError, match=rf": vis/a\.png without a partner of the same name; {words}"):
        find_pairs(tmp_path)
    with pytest.raises(UserError, match=rf"vis has 1 without a partner \(a\.png\); .*{words}"):
        match_pairs(tmp_path / "ir", tmp_path / "vis")
    with pytest.raises(UserError, match=rf"lacks the fused images of 1 of 2 pairs \(a\); .*{words}"):
        find_fused(tmp_path / "ir", ["a", "b"])
    (tmp_path / "ir/b.png").rename(tmp_path / "ir/b.NPY")
    words = r"ir/a\.dcm, .*ir/b\.NPY are there, but timfuse does not read \.dcm, \.npy; save them as \.png, "
    with pytest.raises(UserError, match=rf"and found vis/NAME alone; {words}"):
        find_pairs(tmp_path)
    for folders in (("ir", "vis"), ("vis", "ir")):
        with pytest.raises(UserError, match=rf"/ir holds no image; .*{words}"):
            find_pairs(tmp_path, "mine", folders=folders)
    with pytest.raises(UserError, match=rf"/ir holds no image; .*{words}"):
        match_pairs(tmp_path / "ir", tmp_path / "vis")
    for pattern in ("*.dcm", "a.dcm"):
        with pytest.raises(
            UserError, match=rf"^{tmp_path}/ir/a\.dcm is there, but timfuse does not read \.dcm; save it"
        ):
            match_pairs(tmp_path / "ir" / pattern, tmp_path / "vis")


def test_one_name_in_two_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.png", "b/x.png", "ir/x.png")
    with pytest.raises(UserError, match=r"a/x\.png and .*/b/x\.png have the same name; keep one of them, or rename it"):
        match_pairs(tmp_path / "[ab]/*.png", tmp_path / "ir")


def test_a_path_that_is_too_long(root: Path) -> None:
    with pytest.raises(UserError, match=r"there is no image x+; check the path"):
        match_pairs("x" * 5000, root / "ir")


FIRST_OF_FOUR = ("001", "001.jpg", "001.jpg")


@pytest.mark.parametrize(
    ("case", "task", "count", "expected"),
    [
        *(
            (f"folders_{names}", "infrared-visible", 4, FIRST_OF_FOUR)
            for names in ("II_VI", "IR_RGB", "Infrared_Visible", "TIR_VIS", "T_RGB", "inf_visi", "ir_vi")
        ),
        *((f"folders_{names}", "infrared-visible", 4, FIRST_OF_FOUR) for names in ("lwir_visible", "nir_rgb")),
        ("folders_thermal_rgb", "infrared-visible", 4, FIRST_OF_FOUR),
        ("names_differ", "infrared-visible", 2, ("FLIR_0001", "FLIR_0001.jpg", "0001_vis.png")),
        ("one_folder", "infrared-visible", 2, ("1", "IR1.png", "VIS1.png")),
        ("zero_pad", "infrared-visible", 1, ("1", "1.png", "001.png")),
        ("per_scene", "infrared-visible", 2, ("scene1", "thermal.png", "rgb.png")),
        ("case_names", "infrared-visible", 1, ("IMG_1", "IMG_1.JPG", "img_1.jpg")),
        ("dots", "infrared-visible", 1, ("scene.v1.2", "scene.v1.2.png", "scene.v1.2.jpg")),
        ("mac", "infrared-visible", 1, ("a", "a.png", "a.png")),
        ("misaligned", "infrared-visible", 1, ("a", "a.png", "a.png")),
        ("wrong_ext", "infrared-visible", 1, ("a", "a.png", "a.jpg")),
        ("pgm", "infrared-visible", 2, ("a", "a.pgm", "a.png")),
        ("webp", "infrared-visible", 1, ("a", "a.png", "a.webp")),
        ("lytro", "multi-focus", 2, ("lytro-01", "lytro-01-A.jpg", "lytro-01-B.jpg")),
        ("mefb", "multi-exposure", 2, ("Balloons", "Balloons_A.jpg", "Balloons_B.jpg")),
        ("three_folders", "multi-exposure", 1, ("a", "a.jpg", "a.jpg")),
        ("brackets [new] 测试 ü", "infrared-visible", 1, ("图 1", "图 1.png", "图 1.png")),
    ],
)
def test_sets_that_people_have(shared: Path, case: str, task: str, count: int, expected: tuple[str, str, str]) -> None:
    pairs = find_pairs(shared / "cases" / "files" / case, task)
    assert len(pairs) == count
    assert (pairs[0].name, pairs[0].first.name, pairs[0].second.name) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("lytro/*-A.jpg", "lytro/*-B.jpg", "lytro-01 lytro-02"),
        ("per_scene/*/thermal.png", "per_scene/*/rgb.png", "scene1 scene2"),
        ("mefb/input/*/*_A.jpg", "mefb/input/*/*_B.jpg", "Balloons Cave"),
        ("three_exposures/*/1.JPG", "three_exposures/*/3.JPG", "001 002"),
        ("one_folder/IR*.png", "one_folder/VIS*.png", "1 2"),
        ("brackets [new] 测试 ü/ir/*.png", "brackets [new] 测试 ü/vis/*.png", "图_1"),
        ("three_folders/under", "three_folders/over", "a"),
        ("zero_pad/ir", "zero_pad/vis", "1"),
    ],
)
def test_paths_that_people_give(shared: Path, first: str, second: str, expected: str) -> None:
    folder = shared / "cases" / "files"
    pairs = match_pairs(folder / first, folder / second)
    assert [name.replace(" ", "_") for name in names(pairs)] == expected.split()


def test_sets_that_cannot_be_paired(shared: Path) -> None:
    files = shared / "cases" / "files"
    with pytest.raises(UserError, match=r"dup/ir holds both a\.jpg and a\.png; keep one file for each name"):
        find_pairs(files / "dup")
    with pytest.raises(UserError, match=r"a\.dcm, ir/a\.mat, ir/a\.mp4 and 2 more are there, but timfuse does not"):
        find_pairs(files / "formats")
    assert [file.name for file in find_fused(files / "fused_suffix", ["001", "003"])] == [
        "001_fused.png",
        "003_fused.png",
    ]
    with pytest.raises(UserError, match=r"lacks the fused images of 1 of 2 pairs \(004\); fuse these too"):
        find_fused(files / "fused_suffix", ["001", "004"])


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
