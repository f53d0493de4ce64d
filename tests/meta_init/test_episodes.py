"""Episodes: what they are made of is a function of seed, task and step, and no pair is on both sides."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.data.batch_stream import stream_batches
from timfuse.data.splits import scene_blocks
from timfuse.meta_init.episodes import VALIDATION_CROPS, EpisodeStream, validation_query
from timfuse.meta_init.meta_tasks import Task
from timfuse.objectives import FusionLoss

SIZE = 12
PATIENTS = [f"{patient}{part:03d}" for patient in (7, 12, 31, 102, 115) for part in (8, 9, 10, 44)]


class Levels:
    """A source whose images are flat: grey level 100 + position in the first, 200 - position in the second."""

    labels = None

    def __init__(self, names):
        self.names = tuple(names)

    def __len__(self):
        return len(self.names)

    def size(self, index):
        return SIZE, SIZE

    def __getitem__(self, index):
        rows = np.zeros((SIZE, SIZE), np.uint8)
        return rows + np.uint8(100 + index), rows + np.uint8(200 - index)


class Noise(Levels):
    def __getitem__(self, index):
        first, second = np.random.default_rng(index).integers(0, 256, (2, SIZE, SIZE), dtype=np.uint8)
        return first, second


def make_task(name="mri-ct", names=PATIENTS, held_out=(), *, blocks=None, source=Levels, weight=1.0):
    training = [index for index in range(len(names)) if index not in held_out]
    if blocks is None:
        blocks = [[training[place] for place in block] for block in scene_blocks([names[index] for index in training])]
    return Task(name, weight, source(names), tuple(map(tuple, blocks)), tuple(held_out), FusionLoss())


def make_stream(tasks, **changes):
    return EpisodeStream(tasks, **{"support": 3, "query": 2, "steps": 4, "crop": 8, "seed": 0} | changes)


def assert_equal(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert len(one.support) == len(other.support)
        for batch, again in zip((*one.support, one.query), (*other.support, other.query), strict=True):
            assert torch.equal(batch.first, again.first)
            assert torch.equal(batch.second, again.second)


def pairs_in(batch):
    return [round(255 * level) - 100 for level in batch.first[:, 0, 0, 0].tolist()]


@st.composite
def dealings(draw):
    """Blocks of pairs, and sizes of batches that these are enough for."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=9).filter(lambda sizes: sum(sizes) >= 2))
    support = draw(st.integers(1, sum(sizes) - 1))
    query = draw(st.integers(1, sum(sizes) - support))
    bounds = np.cumsum([0, *sizes]).tolist()
    return [range(*ends) for ends in pairwise(bounds)], support, query


@given(dealing=dealings(), step=st.integers(0, 10**6))
def test_no_pair_is_on_both_sides_and_no_block_where_they_are_small_enough(dealing, step):
    blocks, support, query = dealing
    task = make_task(names=[f"{index}" for index in range(sum(map(len, blocks)))], blocks=blocks)
    sides = make_stream([task], support=support, query=query).pairs_of(task, step)
    assert [len(set(side)) for side in sides] == [support, query]
    assert not set(sides[0]) & set(sides[1])
    block_of = {index: number for number, block in enumerate(blocks) for index in block}
    shared = {block_of[index] for index in sides[0]} & {block_of[index] for index in sides[1]}
    assert len(shared) <= 1
    if sum(map(len, blocks)) >= support + query + max(map(len, blocks)) - 1:
        assert not shared


@given(step=st.integers(0, 10**6), seed=st.integers(0, 10))
def test_support_and_query_share_no_patient(step, seed):
    task = make_task(held_out=(0, 5, 6))
    support, query = make_stream([task], seed=seed).pairs_of(task, step)
    patients = [{PATIENTS[index][:-3] for index in side} for side in (support, query)]
    assert not patients[0] & patients[1]
    assert not {0, 5, 6} & {*support, *query}


def test_two_patients_of_unequal_size_are_cut_no_more_than_needed():
    names = [f"{7}{part:03d}" for part in range(11)] + ["12008"]
    task = make_task(names=names)
    for step in range(50):
        support, query = make_stream([task], support=4, query=4).pairs_of(task, step)
        assert not set(support) & set(query)


@pytest.mark.parametrize("length", [1, 3])
def test_the_batches_are_of_the_pairs_that_were_drawn(length):
    task = make_task()
    stream = make_stream([task])
    support, query = stream.pairs_of(task, 5)
    episode = stream.episode(task, 5, length)
    assert len(episode.support) == length
    assert all(pairs_in(batch) == support for batch in episode.support)
    assert pairs_in(episode.query) == query
    for batch in (*episode.support, episode.query):
        assert batch.first.shape == batch.second.shape == (len(batch.first), 1, 8, 8)
        assert torch.allclose(batch.first + batch.second, torch.tensor(300 / 255))


def test_every_support_batch_has_crops_of_its_own():
    task = make_task(source=Noise)
    episode = make_stream([task]).episode(task, 0, 3)
    assert len({batch.first.numpy().tobytes() for batch in episode.support}) == 3


def test_tasks_are_balanced_whatever_their_sizes():
    tasks = [make_task("mri-ct"), make_task("multi-focus", [f"set{index}" for index in range(7)])]
    stream = make_stream(tasks)
    for step in range(5):
        episodes = stream[step]
        assert len(episodes) == 2
        assert len({len(episode.support) for episode in episodes}) == 1
        assert [len(episode.query.first) for episode in episodes] == [2, 2]


def test_every_pair_comes_about_as_often_where_blocks_are_alike():
    task = make_task()
    stream = make_stream([task])
    drawn = Counter(index for step in range(600) for side in stream.pairs_of(task, step) for index in side)
    assert set(drawn) == set(range(len(PATIENTS)))
    assert [drawn[index] / 3000 for index in drawn] == pytest.approx([1 / 20] * 20, rel=0.3)


def test_an_episode_depends_on_seed_task_and_step_alone():
    first, second = (
        make_task("mri-ct", source=Noise),
        make_task("multi-focus", [f"s{i}" for i in range(9)], source=Noise),
    )
    both = make_stream([first, second])
    list(map(both.__getitem__, range(3)))
    assert_equal(both[7], make_stream([first, second])[7])
    assert_equal(both[7][1:], make_stream([second])[7])
    assert_equal(both[7][:1], make_stream([first])[7])
    for other in (make_stream([first], seed=1)[7][0], make_stream([first])[8][0]):
        assert not torch.equal(other.query.first, both[7][0].query.first)
    renamed = make_task("mri-pet", source=Noise)
    assert not torch.equal(make_stream([renamed])[7][0].query.first, both[7][0].query.first)


@pytest.mark.parametrize("start", [0, 3])
def test_workers_and_resuming_change_nothing(start):
    stream = make_stream([make_task(source=Noise)], pretrain=2)
    whole = list(stream_batches(stream, 0, 6))
    for one, other in zip(whole[start:], stream_batches(stream, start, 6, workers=2), strict=True):
        assert_equal(one, other)


def test_lengths_are_from_one_to_the_most_and_none_in_the_plain_part():
    stream = make_stream([make_task()], pretrain=10)
    lengths = [stream.length(step) for step in range(210)]
    assert set(lengths[:10]) == {0}
    counts = Counter(lengths[10:])
    assert set(counts) == {1, 2, 3, 4}
    assert min(counts.values()) > 25
    assert [len(stream[step][0].support) for step in (9, 10)] == [0, lengths[10]]
    assert make_stream([make_task()], steps=0).length(5) == 0


def test_a_process_without_tasks_has_episodes_of_none():
    assert list(stream_batches(make_stream([]), 0, 3)) == [(), (), ()]


def test_validation_crops_are_spread_over_the_validation_pairs_and_always_the_same():
    task = make_task(held_out=(0, 5, 6))
    query = validation_query(task, 8, 0)
    assert Counter(pairs_in(query)).keys() == {0, 5, 6}
    assert len(query.first) == VALIDATION_CROPS
    many = make_task(held_out=tuple(range(20)), blocks=[])
    assert pairs_in(validation_query(many, 8, 0))[::15] == [0, 19]
    noise = make_task(held_out=(0, 5, 6), source=Noise)
    queries = [validation_query(noise, 8, seed).first for seed in (0, 0, 1)]
    assert torch.equal(queries[0], queries[1])
    assert not torch.equal(queries[0], queries[2])


def test_moving_an_episode():
    episode = make_stream([make_task()])[0][0].to(torch.device("meta"))
    assert {batch.first.device.type for batch in (*episode.support, episode.query)} == {"meta"}
