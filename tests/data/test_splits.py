"""Splits are disjoint, reproducible and keep neighbouring frames together."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timfuse.data import hold_out, make_splits
from timfuse.runtime.errors import UserError


def names_of(count: int) -> list[str]:
    return [f"{index:05d}" for index in range(count)]


@given(
    count=st.integers(3, 300),
    seed=st.integers(0, 2**32),
    part=st.floats(0.01, 0.99),
    held=st.floats(0.01, 0.99),
)
def test_every_pair_is_in_exactly_one_part(count: int, seed: int, part: float, held: float) -> None:
    splits = make_splits(names_of(count), seed=seed, architecture=part, validation=held)
    assert sorted(splits.weight + splits.architecture + splits.validation) == list(range(count))
    assert splits.weight
    assert splits.architecture
    assert splits.validation
    assert splits == make_splits(names_of(count), seed=seed, architecture=part, validation=held)


def test_sizes_and_seeds() -> None:
    splits = make_splits(names_of(200), seed=0)
    assert (len(splits.validation), len(splits.architecture), len(splits.weight)) == (20, 90, 90)
    assert len({make_splits(names_of(200), seed=seed) for seed in range(5)}) == 5


def test_few_neighbours_are_parted() -> None:
    splits = make_splits(names_of(400), seed=1)
    held = set(splits.validation)
    borders = sum((index in held) != (index + 1 in held) for index in range(399))
    assert borders <= 6  # pairs dealt one by one would have about 72


def test_the_order_of_the_source_does_not_matter() -> None:
    names = names_of(50)
    straight, reverse = make_splits(names, seed=3), make_splits(names[::-1], seed=3)
    assert {names[i] for i in straight.weight} == {names[::-1][i] for i in reverse.weight}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_pairs(count: int) -> None:
    with pytest.raises(UserError, match="at least 3"):
        make_splits(names_of(count), seed=0)


def test_files_name_the_parts(tmp_path: Path) -> None:
    names = names_of(10)
    assert make_splits(names, seed=0, folder=tmp_path) == make_splits(names, seed=0)
    (tmp_path / "train.txt").write_text("\n".join(names[:6]))
    with pytest.raises(UserError, match=r"train\.txt alone"):
        make_splits(names, seed=0, folder=tmp_path)
    (tmp_path / "val.txt").write_text("00007.png\n00008\n")
    splits = make_splits(names, seed=0, folder=tmp_path)
    assert splits.validation == (7, 8)
    assert sorted(splits.weight + splits.architecture) == list(range(6))
    (tmp_path / "val.txt").write_text("00005\n")
    with pytest.raises(UserError, match="00005 is named by both"):
        make_splits(names, seed=0, folder=tmp_path)
    (tmp_path / "val.txt").write_text("nobody\n")
    with pytest.raises(UserError, match=r"val\.txt names nobody"):
        make_splits(names, seed=0, folder=tmp_path)
    (tmp_path / "val.txt").write_text("00009\n")
    (tmp_path / "train.txt").write_text("00001\n")
    with pytest.raises(UserError, match="at least 2"):
        make_splits(names, seed=0, folder=tmp_path)


@given(count=st.integers(3, 300), seed=st.integers(0, 2**32), part=st.floats(0.01, 0.9))
def test_a_training_holds_out_what_a_search_does(count: int, seed: int, part: float) -> None:
    training, validation = hold_out(names_of(count), seed=seed, validation=part)
    assert sorted(training + validation) == list(range(count))
    splits = make_splits(names_of(count), seed=seed, validation=part)
    if len(training) > 1:  # a search keeps one more
        assert validation == splits.validation
        assert training == tuple(sorted(splits.weight + splits.architecture))


def test_two_pairs_are_enough_to_train(tmp_path: Path) -> None:
    assert [len(part) for part in hold_out(names_of(2), seed=0)] == [1, 1]
    for count in (0, 1):
        with pytest.raises(UserError, match="at least 2 are needed"):
            hold_out(names_of(count), seed=0)
    (tmp_path / "train.txt").write_text("00003\n")
    (tmp_path / "val.txt").write_text("00001\n")
    assert hold_out(names_of(5), seed=0, folder=tmp_path) == ((3,), (1,))


def test_real_lists(shared: Path) -> None:
    folder = shared / "data" / "roadscene"
    names = sorted(path.stem for path in (folder / "ir").iterdir())
    splits = make_splits(names, seed=0, folder=folder)
    assert (len(splits.weight), len(splits.architecture), len(splits.validation)) == (87, 86, 23)
