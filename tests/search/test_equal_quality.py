"""The rule of one standard error, and the fastest of the networks that it leaves."""

import math

import pytest
import torch

from timfuse.cost import DeploymentTarget
from timfuse.search import equal_quality, search
from timfuse.search.equal_quality import as_good_as_the_best, fastest_of_the_best, losses_of_pairs

OPERATORS = ["residual_k3_d1", "dilated_k3_d2", "separable_k3", "dense_k3_d1"]


@pytest.mark.parametrize(("excess", "kept"), [(0.99, [0, 1]), (1.01, [0])])
def test_a_network_within_one_standard_error_of_the_best_is_as_good(excess, kept):
    best = torch.tensor([3.0, -1.0, 0.5, 7.0], dtype=torch.float64)
    spread = torch.tensor([-1.0, 1.0, 1.0, -1.0], dtype=torch.float64)  # standard deviation √(4/3)
    error = math.sqrt(4 / 3) / 2
    assert as_good_as_the_best(torch.stack([best, best + spread + excess * error])) == kept


def test_what_varies_over_pairs_alone_does_not_count():
    pairs = torch.linspace(-100, 100, 12, dtype=torch.float64)
    assert as_good_as_the_best(torch.stack([pairs + 0.001, pairs, pairs + 0.002])) == [1]


def test_with_one_pair_only_the_best_and_its_equals_are_left():
    assert as_good_as_the_best(torch.tensor([[1.0], [0.5], [0.5]])) == [1, 2]


def test_the_fastest_of_those_that_are_as_good_is_taken(tiny, monkeypatch):
    config = tiny(
        data={"synthetic_pairs": 12, "crop": 24, "batch_size": 1, "validation": 0.4},
        space={"channels": 4, "cells": ["successive"], "steps": 2, "operators": OPERATORS},
        verify={"candidates": 4, "rounds": 1, "steps": 2, "validation_pairs": 3},
    )
    candidates = search(config).verification.candidates
    for candidate in candidates:
        assert losses_of_pairs(config, candidate).mean().item() == pytest.approx(candidate.losses[-1], abs=1e-6)
    names = [candidate.name for candidate in candidates]
    monkeypatch.setattr(equal_quality, "as_good_as_the_best", lambda losses: [0, 1, 2])
    for milliseconds, order in (([10.0, 10.6, 11.0], [0, 1, 2]), ([10.0, 9.0, 11.0], [1, 0, 2]),
                                ([10.0, 9.9, 9.6], [0, 1, 2]), ([10.0, 9.4, 9.1], [1, 0, 2])):  # fmt: skip
        monkeypatch.setattr(DeploymentTarget, "measure", lambda _, passes, given=milliseconds: given)
        assert list(fastest_of_the_best(config, candidates)) == [names[index] for index in order]
