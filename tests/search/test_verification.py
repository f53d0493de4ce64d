"""A verification: what is proposed, that trainings decide, and that none is repeated."""

import csv
import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from timfuse.cost import Choices, CostModel, Decisions, DeploymentTarget, SearchSpace
from timfuse.cost.cost_model import count_costs
from timfuse.data import write_pixels
from timfuse.genotypes import load_genotype, save_genotype
from timfuse.operators import build_network, count_flops
from timfuse.runtime.errors import DivergedError, UserError
from timfuse.runtime.weights import load_into
from timfuse.search import candidate_training, search, verify
from timfuse.search.candidates import (
    BAND,
    described,
    network_key,
    plain_network,
    proposed,
    random_networks,
    uniform_network,
)
from timfuse.search.discretise import choose
from timfuse.search.proposals import distribution

OPERATORS = ["residual_k3_d1", "dilated_k3_d2", "dilated_k3_d1", "separable_k3", "dense_k3_d1"]
SPACE = SearchSpace(4, ("successive",) * 2, 2, ("residual_k3_d1", "dilated_k3_d2", "separable_k3", "identity"))
MODEL = CostModel("params", 100.0, torch.tensor([[1.0, 2.0, 4.0, 0.0], [1.0, 50.0, 2.0, 0.0]], dtype=torch.float64))


def probabilities(seed, sharpness=1.0):
    generator = torch.Generator().manual_seed(seed)
    return Decisions((sharpness * torch.randn(2, 2, 4, generator=generator, dtype=torch.float64)).softmax(-1))


def around(network, model=MODEL):
    """Bounds of the costs that are equal to that of a network."""
    cost = model.predict(network)
    return (1 - BAND) * cost, (1 + BAND) * cost


@pytest.mark.parametrize("seed", range(5))
def test_proposed_networks_are_distinct_cost_the_same_and_begin_with_the_chosen_one(seed):
    likely = choose(probabilities(seed))
    networks = proposed(probabilities(seed), [likely], SPACE, MODEL, around(likely), 6, seed)
    assert networks == proposed(probabilities(seed), [likely], SPACE, MODEL, around(likely), 6, seed)
    assert networks[0] == likely
    others = random_networks(networks, SPACE, MODEL, seed)
    costs = [MODEL.predict(network) for network in networks]
    assert all(abs(cost - costs[0]) <= BAND * costs[0] for cost in costs)
    assert all(any(abs(MODEL.predict(other) - cost) <= BAND * cost for cost in costs) for other in others)
    bare = [
        tuple(tuple(index for index in row if index != 3) for row in network.operators) for network in networks + others
    ]
    assert len(set(bare)) == len(bare) == 12


def test_what_is_probable_is_proposed():
    sharp = probabilities(0, sharpness=3.0)
    first = choose(sharp)
    likely = torch.tensor(first.operators)
    networks = torch.tensor(
        [network.operators for network in proposed(sharp, [first], SPACE, MODEL, around(first), 6, 0)[1:]]
    )
    others = torch.tensor([network.operators for network in random_networks([first] * 6, SPACE, MODEL, 0)])
    assert (networks == likely).double().mean() > (others == likely).double().mean() + 0.2


def test_a_decided_search_proposes_one_network():
    first = Choices([[0, 1], [2, 0]])
    decided = Decisions(torch.nn.functional.one_hot(torch.tensor(first.operators), 4).double())
    assert proposed(decided, [first], SPACE, MODEL, around(first), 6, 0) == [first]


def test_what_several_searches_chose_is_proposed_once_each_whatever_it_costs_and_compared_at_its_own_cost():
    chosen = [Choices([[0, 1], [2, 0]]), Choices([[1, 1], [1, 1]]), Choices([[0, 1], [2, 0]])]
    assert MODEL.predict(chosen[1]) > 1.5 * MODEL.predict(chosen[0])
    networks = proposed(probabilities(0), chosen, SPACE, MODEL, around(chosen[0]), 5, 0)
    assert networks[:2] == chosen[:2]
    assert len(networks) == 5
    cost = MODEL.predict(chosen[0])
    assert all(abs(MODEL.predict(network) - cost) <= BAND * cost for network in networks[2:])
    assert proposed(probabilities(0), chosen, SPACE, MODEL, around(chosen[0]), 1, 0) == chosen[:1]
    others = [MODEL.predict(network) for network in random_networks(networks, SPACE, MODEL, 0)]
    largest = sorted(others)[2]
    cheap = random_networks(networks, SPACE, MODEL, 0, lambda network: MODEL.predict(network) <= largest)
    assert max(map(MODEL.predict, cheap)) <= largest
    dear = MODEL.predict(chosen[1])
    assert len(others) == 5
    assert sum(abs(cost - dear) <= BAND * dear for cost in others) == 1


def test_networks_with_widths_of_their_own_are_proposed_and_drawn_at_the_same_cost():
    names = ("plain_k3", "identity", "inverted_k3")
    space = SearchSpace(((0, 4, 8), (4, 8, 12)), ("stage", "stage"), 2, names, "none", "half", "bands", levels=(0, 1))
    model = count_costs("FLOPs", space, DeploymentTarget(32, 32, torch.device("cpu")))
    generator = torch.Generator().manual_seed(0)
    operators = torch.randn(2, 2, 3, generator=generator).softmax(-1)
    widths = torch.tensor([[0.0, 0.3, 0.7], [0.3, 0.3, 0.4]])
    first = choose(Decisions(operators, widths))
    networks = proposed(Decisions(operators, widths), [first], space, model, around(first, model), 5, 0)
    others = random_networks(networks, space, model, 0)
    assert networks[0] == first
    assert len({network_key(space, network) for network in networks + others}) == len(networks + others)
    assert len({network.widths for network in networks + others}) > 1
    assert all(network.widths[0] > 0 for network in networks)
    costs = [model.predict(network) for network in networks]
    assert all(abs(cost - costs[0]) <= BAND * costs[0] for cost in costs)
    assert all(any(abs(model.predict(other) - cost) <= BAND * cost for cost in costs) for other in others)
    for network in networks + others:
        assert space.choices(described(space.genotype(network))).widths == network.widths


def test_networks_without_the_finest_level_are_the_same_whatever_its_cells_would_be():
    space = SearchSpace(
        ((0, 4), (4, 8)), ("stage", "stage"), 2, ("plain_k3", "identity"), "none", "half", "bands", levels=(0, 1)
    )
    absent = [Choices([row, [0, 1]], (0, 1)) for row in ([0, 0], [1, 1])]
    assert len({network_key(space, network) for network in absent}) == 1
    present = [replaced._replace(widths=(1, 1)) for replaced in absent]
    assert len({network_key(space, network) for network in present}) == 2
    assert network_key(space, Choices([[0, 1], [1, 0]], (1, 0))) == network_key(
        space, Choices([[1, 0], [0, 1]], (1, 0))
    )


@pytest.mark.parametrize("budget", [0.4, 0.6, 0.8])
def test_the_plain_network_has_one_operator_even_widths_and_the_cost(budget):
    space = SearchSpace(
        ((0, 4, 8, 12), (4, 8, 12, 16)),
        ("stage", "stage"),
        2,
        ("identity", *OPERATORS[:2]),
        "none",
        "half",
        "bands",
        levels=(0, 1),
    )
    model = count_costs("FLOPs", space, DeploymentTarget(32, 32, torch.device("cpu")))
    largest = model.predict(Choices([[1, 1], [1, 1]], (3, 3)))
    costs = 0.8 * budget * largest, budget * largest
    network = plain_network(space, model, costs)
    assert network is not None
    assert costs[0] <= model.predict(network) <= costs[1]
    assert {index for row in network.operators for index in row} <= {0, 1}
    assert network.operators[0] == network.operators[1]
    assert network.operators[0][0] == 1
    assert abs(network.widths[0] - network.widths[1]) <= 1
    assert plain_network(space, model, (2 * largest, 3 * largest)) is None


def test_the_plain_network_keeps_the_finest_level_where_it_is_affordable():
    space = SearchSpace(
        ((0, 4, 8), (4, 8, 12)), ("stage", "stage"), 2, ("identity", "plain_k3"), "none", "half", "bands", levels=(0, 1)
    )
    model = count_costs("FLOPs", space, DeploymentTarget(32, 32, torch.device("cpu")))
    least = model.predict(Choices([[1, 0], [1, 0]], (1, 0)))
    absent = Choices([[1, 1], [1, 1]], (0, 0))  # even in its widths, but without the level
    assert model.predict(absent) < least
    network = plain_network(space, model, (model.predict(absent), least))
    assert network is not None
    assert network.widths == (1, 0)
    network = plain_network(space, model, (0.0, 0.99 * least))
    assert network is not None
    assert network.widths[0] == 0


def test_uniform_networks_have_every_operator_and_width_equally_often():
    space = SearchSpace(((0, 4, 8), (4, 8, 12)), ("stage", "stage"), 2, OPERATORS[:4], levels=(0, 1))
    draw = random.Random(0)
    networks = [uniform_network(space, draw) for _ in range(2000)]
    widths = torch.tensor([network.widths for network in networks])
    operators = torch.tensor([network.operators for network in networks]).flatten(1)
    for decisions, count in ((widths, 3), (operators, 4)):
        shares = torch.nn.functional.one_hot(decisions, count).double().mean(0)
        torch.testing.assert_close(shares, torch.full_like(shares, 1 / count), rtol=0, atol=0.05)


@pytest.fixture
def config(tiny):
    return tiny(
        data={"synthetic_pairs": 6, "crop": 24, "batch_size": 1},
        space={"channels": 4, "cells": ["successive"], "steps": 2, "operators": OPERATORS},
        verify={"candidates": 3, "rounds": 2, "steps": 2, "validation_pairs": 1},
    )


def test_the_better_half_goes_on_and_the_best_network_is_the_result(config, monkeypatch):
    result = search(config)
    done = result.verification
    assert Counter(each.origin for each in done.candidates) == {"proposed": 3, "random": 3}
    for origin in ("proposed", "random"):
        of_kind = [candidate for candidate in done.candidates if candidate.origin == origin]
        longest = [candidate for candidate in of_kind if len(candidate.losses) == 2]
        shortest = [candidate for candidate in of_kind if len(candidate.losses) == 1]
        assert (len(longest), len(shortest)) == (2, 1)
        assert max(candidate.losses[0] for candidate in longest) <= shortest[0].losses[0]
    assert done.candidates[0].losses[-1] == min(each.losses[-1] for each in done.candidates if len(each.losses) == 2)
    assert next(iter(done.equal)) == done.best.name
    assert done.candidates[0].name in done.equal
    assert done.best_proposed.losses[-1] == min(each.losses[-1] for each in done.candidates if each.origin == "proposed"
                                       and len(each.losses) == 2)  # fmt: skip
    assert done.best_random.losses[-1] == min(
        each.losses[-1] for each in done.candidates if each.origin == "random" and len(each.losses) == 2
    )
    genotype = load_genotype(config.run)
    assert genotype == result.genotype
    assert genotype.cells == done.best.genotype.cells
    assert genotype.provenance["verification"]["network"] == done.best.name
    assert genotype.provenance["flops_640x480"] == count_flops(build_network(genotype), 480, 640)
    networks = [build_network(genotype) for _ in range(2)]
    trained = config.run / "verification" / "round-2" / done.best.name
    for network, folder in zip(networks, (config.run, trained), strict=True):
        load_into(network, folder)
    for name, tensor in networks[0].state_dict().items():
        assert torch.equal(tensor, networks[1].state_dict()[name])
    with (config.run / "verification.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["network"] for row in rows] == [candidate.name for candidate in done.candidates]

    # Whichever was the best, what the search chose remains the first.
    (first,) = (each for each in done.candidates if each.name == "proposed-0")
    assert genotype.provenance["verification"]["searched"] == {
        "channels": 4,
        "operators": [list(cell.operators) for cell in first.genotype.cells],
    }
    monkeypatch.setattr(candidate_training, "train", None)  # trainings that have ended are not repeated
    again = verify(config)
    assert [(each.name, each.losses) for each in again.candidates] == [
        (each.name, each.losses) for each in done.candidates
    ]


def test_a_repeated_search_trains_anew(config, monkeypatch):
    search(config)
    calls = []
    real = candidate_training.train
    monkeypatch.setattr(
        candidate_training, "train", lambda *given, **flags: calls.append(flags) or real(*given, **flags)
    )
    search(config, overwrite=True)
    assert len(calls) == 3 + 3 + 2 + 2


def test_no_proposed_network_exceeds_the_budget(config):
    budget = config.model_copy(update={"cost": config.cost.model_copy(update={"budget": "1.1kparams"})})
    result = search(budget)
    assert result.budget.met
    assert result.budget.measured <= 1100
    for candidate in result.verification.candidates:
        if candidate.origin == "proposed":
            assert sum(map(torch.numel, build_network(candidate.genotype).parameters())) <= 1100


def test_without_another_network_of_the_cost_the_found_one_is_trained_alone(tiny):
    config = tiny(
        data={"synthetic_pairs": 6, "crop": 24, "batch_size": 1},
        space={"channels": 4, "cells": ["successive"], "steps": 1, "operators": ["non_local_k7", "identity"]},
        verify={"candidates": 2, "rounds": 1, "steps": 2},
    )
    done = search(config).verification
    assert [candidate.name for candidate in done.candidates] == ["proposed-0"]
    assert done.best_random is None


def test_a_training_of_another_network_or_length_is_not_taken_for_that_of_a_candidate(config, monkeypatch):
    search(config)
    first = config.run / "verification" / "round-1" / "proposed-1.yaml"
    other = load_genotype(first)
    save_genotype(replace(other, cells=(replace(other.cells[0], operators=("identity", "identity")),)), first)
    trained = []
    real = candidate_training.train
    monkeypatch.setattr(
        candidate_training, "train", lambda of, **flags: trained.append(of.run.name) or real(of, **flags)
    )
    verify(config)
    assert trained == ["proposed-1"]
    longer = config.model_copy(update={"verify": config.verify.model_copy(update={"steps": 3})})
    verify(longer)
    assert len(trained) == 1 + 6 + 4


def test_all_pairs_weigh_the_same_whatever_their_folder(tiny, tmp_path):
    noise = np.random.default_rng(0)
    for root, count in (("few", 4), ("many", 8)):
        for index in range(count):
            for folder in ("ir", "vis"):
                pixels = noise.integers(0, 256 if root == "few" else 40, (48, 48), dtype=np.uint8)
                write_pixels(tmp_path / root / folder / f"{index}.png", pixels)
    config = tiny(
        data={"root": [str(tmp_path / "few"), str(tmp_path / "many")], "crop": 24, "batch_size": 1, "validation": 0.5},
        space={"channels": 4, "cells": ["successive"], "steps": 1, "operators": OPERATORS[:2]},
        verify={"candidates": 1, "rounds": 1, "steps": 1, "validation_pairs": 3},
    )
    for candidate in search(config).verification.candidates:
        folder = config.run / "verification" / "round-1" / candidate.name
        scores = load_genotype(folder).provenance["metrics"]["best"]
        few, many = (scores[name]["loss"] for name in ("few", "many"))
        assert few != pytest.approx(many, abs=0.05)
        assert candidate.losses == [pytest.approx((2 * few + 3 * many) / 5, abs=1e-12)]


def test_a_network_whose_training_diverges_loses(config, monkeypatch):
    real = candidate_training.train

    def train(training, **flags):
        if training.run.name == "proposed-0":
            raise DivergedError("the loss is not finite")
        return real(training, **flags)

    monkeypatch.setattr(candidate_training, "train", train)
    done = search(config).verification
    (first,) = (candidate for candidate in done.candidates if candidate.name == "proposed-0")
    assert first.losses == [math.inf]
    assert done.best.name != "proposed-0"


def test_what_is_verified_has_been_searched_and_by_the_fusion_loss(config, tiny):
    with pytest.raises(UserError, match="holds no search that has ended"):
        verify(config)
    assert not config.run.exists()
    with pytest.raises(ValueError, match=r"must have verify\.candidates = 0 with a downstream task"):
        tiny(verify={"candidates": 2}, downstream={"kind": "detection"}, data={"crop": 64})


def test_searches_with_several_seeds_propose_together(config):
    result = search(config.model_copy(update={"seeds": 2}))
    assert result.verification is not None
    space = config.space.search_space
    both = [distribution(config.run / f"seed-{seed}", space) for seed in (0, 1)]
    assert [decisions.widths for decisions in both] == [None, None]
    means = torch.stack([decisions.operators for decisions in both]).mean(0)
    torch.testing.assert_close(means.sum(-1), torch.ones(1, 2, dtype=torch.float64))
    assert result.genotype.provenance["verification"]["network"] == result.verification.best.name
