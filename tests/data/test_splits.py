"""Splits and blocks are disjoint, reproducible and keep neighbouring frames together."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timfuse.data import find_pairs
from timfuse.data.splits import Split, scene_blocks, split_pairs
from timfuse.runtime.errors import UserError


def names_of(count: int) -> list[str]:
    return [f"{index:05d}" for index in range(count)]


@given(
    count=st.integers(3, 300),
    seed=st.integers(0, 2**32),
    part=st.none() | st.floats(0.01, 0.99),
    held=st.floats(0.01, 0.99),
)
def test_every_pair_is_in_exactly_one_part(count: int, seed: int, part: float | None, held: float) -> None:
    split = split_pairs(names_of(count), seed=seed, architecture=part, validation=held)
    assert sorted(index for positions in split for index in positions) == list(range(count))
    assert split.training
    assert split.validation
    assert bool(split.architecture) == (part is not None)
    assert split == split_pairs(names_of(count), seed=seed, architecture=part, validation=held)


def test_sizes_and_seeds() -> None:
    split = split_pairs(names_of(200), seed=0, architecture=0.5)
    assert [len(part) for part in split] == [90, 90, 20]
    assert len({split_pairs(names_of(200), seed=seed) for seed in range(5)}) == 5


def test_what_a_seed_deals_stays_the_same() -> None:
    split = split_pairs(names_of(23), seed=5, architecture=0.4, validation=0.2)
    assert split == Split(
        training=(0, 1, 4, 5, 9, 11, 13, 14, 19, 20, 22),
        architecture=(3, 7, 8, 15, 16, 17, 18),
        validation=(2, 6, 10, 12, 21),
    )


def test_few_neighbours_are_parted() -> None:
    held = set(split_pairs(names_of(400), seed=1).validation)
    borders = sum((index in held) != (index + 1 in held) for index in range(399))
    assert borders <= 6  # pairs dealt one by one would have about 72


def test_the_order_of_the_source_does_not_matter() -> None:
    names = names_of(50)
    straight, reverse = (split_pairs(each, seed=3, architecture=0.5) for each in (names, names[::-1]))
    assert {names[i] for i in straight.training} == {names[::-1][i] for i in reverse.training}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_pairs(count: int) -> None:
    with pytest.raises(UserError, match="at least 3"):
        split_pairs(names_of(count), seed=0, architecture=0.5)


def test_files_name_the_parts(tmp_path: Path) -> None:
    names = names_of(10)

    def split() -> Split:
        return split_pairs(names, seed=0, folder=tmp_path, architecture=0.5)

    assert split() == split_pairs(names, seed=0, architecture=0.5)
    (tmp_path / "train.txt").write_text("\n".join(names[:6]))
    with pytest.raises(UserError, match=r"train\.txt alone"):
        split()
    (tmp_path / "val.txt").write_text("00007.png\n00008\n")
    assert split().validation == (7, 8)
    assert sorted(split().training + split().architecture) == list(range(6))
    (tmp_path / "val.txt").write_text("00005\n")
    with pytest.raises(UserError, match="00005 is named by both"):
        split()
    (tmp_path / "val.txt").write_text("nobody\n")
    with pytest.raises(UserError, match=r"val\.txt names nobody"):
        split()
    (tmp_path / "val.txt").write_text("00009\n")
    (tmp_path / "train.txt").write_text("00001\n")
    with pytest.raises(UserError, match="names 1 pair; at least 2"):
        split()


@given(count=st.integers(3, 300), seed=st.integers(0, 2**32), part=st.floats(0.01, 0.9))
def test_a_training_holds_out_what_a_search_does(count: int, seed: int, part: float) -> None:
    training = split_pairs(names_of(count), seed=seed, validation=part)
    search = split_pairs(names_of(count), seed=seed, validation=part, architecture=0.5)
    if len(training.training) > 1:  # a search keeps one more
        assert training.validation == search.validation
        assert training.training == tuple(sorted(search.training + search.architecture))


def test_two_pairs_are_enough_to_train(tmp_path: Path) -> None:
    assert [len(part) for part in split_pairs(names_of(2), seed=0)] == [1, 0, 1]
    for count, told in ((0, "0 pairs"), (1, "1 pair")):
        with pytest.raises(UserError, match=f"{told} cannot be split into training and validation; at least 2"):
            split_pairs(names_of(count), seed=0)
    (tmp_path / "train.txt").write_text("00003\n")
    (tmp_path / "val.txt").write_text("00001\n")
    assert split_pairs(names_of(5), seed=0, folder=tmp_path) == Split((3,), (), (1,))


def test_unlabelled_pairs_that_files_name_are_passed_over(tmp_path: Path) -> None:
    names, unlabelled = names_of(4)[1::2], names_of(4)[::2]

    def split() -> Split:
        return split_pairs(names, seed=0, folder=tmp_path, unlabelled=unlabelled)

    assert sorted(split().training + split().validation) == [0, 1]  # without files the others are not dealt
    (tmp_path / "train.txt").write_text("00000\n00003\n")
    (tmp_path / "val.txt").write_text("00001\n00002\n")
    assert split() == Split((1,), (), (0,))
    (tmp_path / "val.txt").write_text("00002\n")
    with pytest.raises(UserError, match=r"none of the validation pairs in .* has a label"):
        split()
    (tmp_path / "val.txt").write_text("00007\n")
    with pytest.raises(UserError, match="names 00007, of which there is no image"):
        split()


@given(count=st.integers(6, 60), seed=st.integers(0, 2**32), data=st.data())
def test_a_search_has_the_same_parts_with_and_without_labels(count: int, seed: int, data: st.DataObject) -> None:
    whole = split_pairs(names_of(count), seed=seed, architecture=0.5)
    missing = data.draw(st.sampled_from(whole.training if len(whole.training) > 1 else whole.architecture))
    names = [name for index, name in enumerate(names_of(count)) if index != missing]
    split = split_pairs(names, seed=seed, architecture=0.5, unlabelled=names_of(count)[missing : missing + 1])
    for part, full in zip(split, whole, strict=True):
        assert [names[index] for index in part] == [names_of(count)[index] for index in full if index != missing]


def test_real_lists(shared: Path) -> None:
    folder = shared / "data" / "roadscene"
    names = sorted(path.stem for path in (folder / "ir").iterdir())
    assert [len(part) for part in split_pairs(names, seed=0, folder=folder, architecture=0.5)] == [87, 86, 23]


def blocks_of(*names: str) -> list[list[str]]:
    return [[names[index] for index in block] for block in scene_blocks(names)]


FRAMES = st.builds("{}{:05d}{}".format, st.sampled_from(["", "FLIR_", "FLIR_video_", "a 1_"]), st.integers(0, 10**5),
                   st.sampled_from(["", "N", "D"]))  # fmt: skip
SLICES = st.builds("{}{:03d}".format, st.integers(1, 12), st.integers(0, 40))
SCENES = st.text(max_size=6) | st.sampled_from(["Arno", "Window", "Window2", "1", "01", "1a"])


@given(names=st.lists(FRAMES, unique=True) | st.lists(SLICES, unique=True) | st.lists(FRAMES | SLICES | SCENES))
def test_every_pair_is_in_exactly_one_block(names: list[str]) -> None:
    blocks = scene_blocks(names)
    assert all(blocks)
    assert sorted(index for block in blocks for index in block) == list(range(len(names)))
    assert len(blocks) >= min(2, len(names))


@given(names=st.lists(FRAMES | SLICES | SCENES, unique=True), data=st.data())
def test_blocks_do_not_depend_on_the_order_of_the_source(names: list[str], data: st.DataObject) -> None:
    assert blocks_of(*data.draw(st.permutations(names))) == blocks_of(*names)


@given(names=st.lists(SLICES, min_size=1, unique=True))
def test_patients_are_blocks(names: list[str]) -> None:
    patients = {name[:-3] for name in names}
    if len(patients) > 1:
        assert sorted({name[:-3] for name in block} for block in blocks_of(*names)) == [{p} for p in sorted(patients)]


@given(numbers=st.lists(st.integers(0, 10**5), min_size=1, unique=True), padded=st.booleans())
def test_frames_are_dealt_in_stretches(numbers: list[int], padded: bool) -> None:
    names = {f"video_{number:06d}" if padded else f"video_{number}": number for number in numbers}
    blocks = blocks_of(*names)
    assert [names[name] for block in blocks for name in block] == sorted(numbers)
    assert len(blocks) <= 20
    sizes = [len(block) for block in blocks]
    assert max(sizes) - min(sizes) <= 1


def test_blocks_of_names_of_several_kinds() -> None:
    assert blocks_of("Arno", "Cave", "Land") == [["Arno"], ["Cave"], ["Land"]]
    assert blocks_of("Window2", "Window", "WindowTrim", "Cave") == [["Cave"], ["Window", "Window2"], ["WindowTrim"]]
    assert blocks_of("uk_01", "s-2", "s-10", "s-3", "s-1") == [["s-1", "s-2"], ["s-3", "s-10"], ["uk_01"]]
    assert blocks_of("00003N", "00001D", "00002D", "00010N") == [["00001D", "00002D"], ["00003N", "00010N"]]


def test_one_patient_alone_and_frames_past_999_are_cut_into_stretches() -> None:
    assert blocks_of("12001", "12002", "12003", "12004") == [["12001", "12002"], ["12003", "12004"]]
    assert blocks_of("00998", "00999", "01000", "01001") == [["00998", "00999"], ["01000", "01001"]]
    assert blocks_of("1700000000123", "1700000001123") == [["1700000000123"], ["1700000001123"]]  # times, no patients


def test_two_alike_are_parted_where_there_is_nothing_else() -> None:
    assert blocks_of("Window", "Window2") == [["Window"], ["Window2"]]
    assert blocks_of("Window") == [["Window"]]
    assert blocks_of() == []


@pytest.mark.parametrize(
    ("folder", "task", "count"),
    [
        ("roadscene", "infrared-visible", 20),
        ("medical/mri-ct", "mri-ct", 7),
        ("medical/mri-pet", "mri-pet", 2),
        ("medical/mri-spect", "mri-spect", 11),
        ("mef", "multi-exposure", 49),
        ("mff", "multi-focus", 13),
    ],
)
def test_blocks_of_real_sets(shared: Path, folder: str, task: str, count: int) -> None:
    blocks = blocks_of(*(pair.name for pair in find_pairs(shared / "data" / folder, task, "train")))
    assert len(blocks) == count
    if task.startswith("mri"):
        assert all(len({name[:-3] for name in block}) == 1 for block in blocks)


def test_a_list_of_test_pairs_is_not_taken_for_validation(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text("00001\n")
    line = f"{tmp_path} holds train.txt and test.txt, but no val.txt; copy test.txt to val.txt"
    with pytest.raises(UserError, match=f"^{line}$"):
        split_pairs(names_of(4), seed=0, folder=tmp_path)
    (tmp_path / "train.txt").rename(tmp_path / "val.txt")
    with pytest.raises(UserError, match=r"holds val\.txt alone"):
        split_pairs(names_of(4), seed=0, folder=tmp_path)


def test_listed_test_pairs_are_in_no_part(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("00000\n00003\n00004\nof_another_part\n")
    for seed in range(5):
        split = split_pairs(names_of(8), seed=seed, folder=tmp_path, architecture=0.4)
        assert sorted(index for part in split for index in part) == [1, 2, 5, 6, 7]
    (tmp_path / "test.txt").write_text("".join(f"{name}\n" for name in names_of(8)[1:]))
    split = split_pairs(names_of(8), seed=0, folder=tmp_path)
    assert sorted(index for part in split for index in part) == list(range(8))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/etc/passwd", "names /etc/passwd, of which there is no image"),
        ("../../etc/passwd\n00001", r"names \.\./\.\./etc/passwd, of which there is no image"),
        ("# some\n00001", "names # some, of which there is no image"),
        ("\x1b[31m", r"names \\x1b\[31m, of which there is no image"),
        ("0\x00", r"names 0\\x00, of which there is no image"),
        ("", r"train\.txt names no pair; write one pair name per line or remove the file"),
        ("x" * 10_000_000, "names x{255}…, of which there is no image"),
    ],
)
def test_a_list_with_bad_lines(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "train.txt").write_text(line)
    (tmp_path / "val.txt").write_text("00002")
    with pytest.raises(UserError, match=words):
        split_pairs(names_of(4), seed=0, folder=tmp_path)


def test_lists_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("00002")
    (tmp_path / "train.txt").write_bytes(b"\x9e")
    with pytest.raises(UserError, match=r"train\.txt is no text in UTF-8; save it in UTF-8"):
        split_pairs(names_of(4), seed=0, folder=tmp_path)
    (tmp_path / "train.txt").unlink()
    (tmp_path / "train.txt").symlink_to(tmp_path / "train.txt")
    with pytest.raises(UserError, match=r"holds val\.txt alone"):
        split_pairs(names_of(4), seed=0, folder=tmp_path)


@pytest.mark.parametrize("case", ["bom", "listpaths", "twocol"])
def test_lists_that_people_have(shared: Path, case: str) -> None:
    folder = shared / "cases" / "files" / case
    split = split_pairs([pair.name for pair in find_pairs(folder)], seed=0, folder=folder)
    assert split == Split(training=(0, 1, 2, 3), architecture=(), validation=(4, 5))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("files/test_txt", "holds train.txt and test.txt, but no val.txt"),
        ("faults/data-list-abs/d", "names /etc/passwd, of"),
        ("faults/data-list-comment/d", "names # x, of"),
        ("faults/data-list-ctrl/d", r"names \\x1b\[31m, of"),
        ("faults/data-list-empty/d", "names no pair"),
        ("faults/data-list-nonutf8/d", "is no text in UTF-8"),
        ("faults/data-list-nul/d", r"names 0\\x00, of"),
        ("faults/data-list-same/d", "1 is named by both"),
        ("faults/data-list-trav/d", r"names \.\./\.\./etc/passwd, of"),
    ],
)
def test_lists_that_do_harm(shared: Path, case: str, words: str) -> None:
    folder = shared / "cases" / case
    with pytest.raises(UserError, match=words):
        split_pairs([pair.name for pair in find_pairs(folder)], seed=0, folder=folder)


@pytest.mark.parametrize(("case", "training"), [("bom", (0, 1, 2)), ("slash", (0, 1))])
def test_lists_that_were_refused_though_valid(shared: Path, case: str, training: tuple[int, ...]) -> None:
    folder = shared / "cases" / "faults" / f"data-list-{case}" / "d"
    split = split_pairs([pair.name for pair in find_pairs(folder)], seed=0, folder=folder)
    assert split == Split(training, (), (3,))
