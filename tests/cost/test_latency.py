import time
from functools import partial

import pytest
import torch

from timfuse.cost import latency
from timfuse.cost.latency import ROUNDS, measure

CPU = torch.device("cpu")


def test_what_is_measured_is_the_time_of_the_forward_pass():
    (milliseconds,) = measure([lambda: time.sleep(0.02)], CPU)
    assert 20 <= milliseconds < 60


class Clock:
    """Stands for the module `time`; passes take as long as they are told to."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def perf_counter(self):
        return self.now

    def forward(self, name, durations):
        self.order.append(name)
        self.now += next(durations)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    return clock


def test_a_round_visits_all_and_counts_the_fastest_run_after_a_first_one(clock):
    # So long a first run leaves time for two more.
    seconds = {"a": [0.5, 0.02, 0.03], "b": [0.9, 0.1, 0.05]}
    forwards = [
        partial(clock.forward, name, iter([value + 0.001 * number for number in range(ROUNDS) for value in values]))
        for name, values in seconds.items()
    ]
    later = ROUNDS // 2  # milliseconds in the median round
    assert measure(forwards, CPU) == [pytest.approx(20 + later), pytest.approx(50 + later)]
    assert clock.order == ROUNDS * ["a", "a", "a", "b", "b", "b"]


def test_a_busy_moment_does_not_count(clock):
    busy = [1.0] * 9 + [0.01] * 100
    assert measure([partial(clock.forward, "a", iter(busy))], CPU) == [10]


def test_what_takes_seconds_runs_once(clock):
    forwards = [partial(clock.forward, "slow", iter([3.0])), partial(clock.forward, "fast", iter([0.001] * 100))]
    assert measure(forwards, CPU) == [3000, 1]
    assert clock.order.count("slow") == 1
    assert clock.order.count("fast") == ROUNDS * 6
