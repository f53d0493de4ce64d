import math

import pytest
import torch

from timfuse.cost import (
    Choices,
    LatencyPrediction,
    SearchSpace,
    check_latency_prediction,
    load_latency_table,
    print_latency_prediction,
)
from timfuse.cost.latency_prediction import rank_correlation
from timfuse.cost.latency_table import latency_table_path

CPU = torch.device("cpu")
OPERATORS = ("residual_k3_d1", "spatial_attention_k3", "channel_attention_k3")


@pytest.mark.parametrize(
    ("first", "second", "correlation"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 1000], 1),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 - 6 sum d^2 / (n (n^2 - 1))
        ([1, 1, 2], [1, 2, 3], math.sqrt(0.75)),  # equal numbers share their ranks
    ],
)
def test_rank_correlation(first, second, correlation):
    assert rank_correlation(first, second) == pytest.approx(correlation, abs=1e-12)


def test_rank_correlation_of_equal_numbers_is_not_a_number():
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_predicted_against_measured(counting):
    space, target = SearchSpace(2, ("successive", "multi_scale"), 2, OPERATORS), counting(16, 16)
    prediction = check_latency_prediction(space, target, networks=5, seed=0)
    assert len(target.measured) == 3 * 3 + 1 + 5
    assert prediction.measured == [11.0, 12.0, 13.0, 14.0, 15.0]
    table = load_latency_table(latency_table_path(CPU), CPU)
    assert prediction.table == latency_table_path(CPU)
    for genotype, predicted in zip(prediction.networks, prediction.predicted, strict=True):
        first, second = (cell.operators for cell in genotype.cells)
        shapes = ("2x16x16", "4x8x8", "8x4x4")
        assert predicted == pytest.approx(
            table["rest successive multi_scale 2 batch full direct 16x16"]
            + sum(table[f"{name} 2x16x16 batch"] for name in first)
            + sum(table[f"{name} {shape} batch"] for name in second for shape in shapes)
        )
    again = check_latency_prediction(space, target, networks=5, seed=0)
    assert len(target.measured) == 15 + 5
    assert again.networks == prediction.networks
    other = check_latency_prediction(space, target, networks=5, seed=1, fresh=True)
    assert len(target.measured) == 20 + 15
    assert other.networks != prediction.networks


def test_figures_and_table(capsys):
    space = SearchSpace(2, ("successive",), 1, OPERATORS)
    networks = [space.genotype(Choices([[index]])) for index in range(3)]
    path = latency_table_path(CPU)
    prediction = LatencyPrediction(networks, [9.0, 22.0, 40.0], [10.0, 40.0, 20.0], "an abacus", path)
    assert prediction.errors == [pytest.approx(-0.1), pytest.approx(-0.45), pytest.approx(1.0)]
    assert prediction.median_error == pytest.approx(0.45)
    assert prediction.correlation == pytest.approx(0.5)
    print_latency_prediction(prediction)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-3:] for line in lines[1:4]] == [
        ["9.00", "10.00", "-10.0%"],
        ["40.00", "20.00", "+100.0%"],
        ["22.00", "40.00", "-45.0%"],
    ]
    assert lines[4] == "rank correlation 0.500, median error 45.0%, on an abacus"
    assert lines[5] == f"table     {prediction.table}"
