"""The table of trained networks: what it holds, how far it can be trusted, and how scores are judged by it."""

import itertools
import math
import random
from dataclasses import replace

import pytest
import torch

from timfuse import cli
from timfuse.cost import Choices, Decisions, SearchSpace
from timfuse.genotypes import load_genotype
from timfuse.operators import build_network, count_flops, count_parameters
from timfuse.runtime.errors import UserError
from timfuse.search import SearchConfig
from timfuse.search.benchmark import BUDGETS, METRICS, explanation, judge, query, reliability, trained_networks
from timfuse.search.benchmark_scores import log_probability
from timfuse.search.candidates import described, network_key

SPACE = SearchConfig().space.search_space


def test_it_holds_more_than_a_hundred_different_networks_of_the_default_space():
    networks = trained_networks()
    assert len(networks) > 100
    keys = {network_key(SPACE, SPACE.choices(described(network.genotype))) for network in networks}
    assert len(keys) == len(networks)
    for network in networks:
        assert abs(network.gflops / network.budget - 1) <= 0.05
        assert all(len(losses) == 4 for losses in network.losses.values())
        assert list(network.metrics) == list(METRICS)
    assert {network.budget for network in networks} == set(BUDGETS)


def test_costs_are_those_of_the_networks():
    for network in random.Random(0).sample(trained_networks(), 6):
        built = build_network(network.genotype)
        assert network.gflops == pytest.approx(count_flops(built, 480, 640) / 1e9, abs=1e-4)
        assert network.parameters == count_parameters(built)


def test_a_network_is_found_by_its_genotype_alone():
    network = trained_networks()[5]
    assert query(SPACE.genotype(SPACE.choices(described(network.genotype)))) is network
    with pytest.raises(UserError, match=r"ivif-fast is none of the \d+ networks in the benchmark"):
        query(load_genotype("ivif-fast"))


def test_halves_of_the_seeds_agree():
    trust = reliability(trained_networks())
    assert trust.agreement >= 0.8
    assert trust.spread / trust.noise >= 2


def test_a_cause_that_explains_everything_leaves_nothing():
    made = []
    signs = dict.fromkeys(BUDGETS, 1)
    for network in trained_networks():
        signs[network.budget] *= -1
        loss, noise = 2.0 - 0.5 * math.log(network.gflops) + 0.25 * (network.genotype.widths[0] > 0), 0.1
        noise *= signs[network.budget]
        of_seed = network.budget  # is no noise
        made.append(replace(network, losses={1: [loss - noise - of_seed, loss + noise + of_seed]}))
    found, freedom = explanation(made), len(made) - len(BUDGETS)
    assert (found.share, found.rest) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-9))
    assert found.noise == pytest.approx(math.sqrt(2 * 0.1**2 * len(made) / freedom / 2))
    assert reliability(made).noise == pytest.approx(math.sqrt(2) * found.noise)


def test_the_truth_is_the_best_score_and_its_opposite_the_worst():
    best, none, worst = (judge(lambda network, sign=sign: sign * network.loss) for sign in (1, 0, -1))
    assert (best.correlation, none.correlation, worst.correlation) == (pytest.approx(1.0), 0.0, pytest.approx(-1.0))
    assert best.found < none.found < worst.found
    assert best.quantile < none.quantile < worst.quantile


def test_the_probabilities_of_all_networks_sum_to_one():
    space = SearchSpace(
        ((0, 4), (4, 6)), ("stage",) * 2, 2, ("identity", "plain_k3", "inverted_k3"), "none", "half", "bands", (0, 1)
    )
    generator = torch.Generator().manual_seed(0)
    operators = torch.rand(2, 2, 3, generator=generator, dtype=torch.float64).softmax(-1)
    widths = torch.rand(2, 2, generator=generator, dtype=torch.float64).softmax(-1)
    rows = list(itertools.product(range(3), repeat=2))
    networks = {
        network_key(space, choices): space.genotype(choices)
        for first, second, width in itertools.product(rows, rows, itertools.product(range(2), repeat=2))
        for choices in [Choices([list(first), list(second)], width)]
    }
    total = sum(math.exp(log_probability(Decisions(operators, widths), space, each)) for each in networks.values())
    assert total == pytest.approx(1.0)


def test_the_command_prints_both_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as finished:
        cli.main(["search", "--benchmark"])
    assert finished.value.code in (0, None)
    output = capsys.readouterr().out
    assert all(name in output for name in ("agreement of halves of the seeds", "random", "parameters", "2.0 GFLOPs"))
    assert not list(tmp_path.iterdir())
