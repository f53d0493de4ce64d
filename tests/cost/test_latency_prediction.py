import math

import pytest
import torch

from timfuse.cost import latency as latency_module
from timfuse.cost.latency_prediction import rank_correlation
from timfuse.cost.latency_table import load_table, table_path
from timfuse.search import Prediction, check_prediction, print_prediction


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


def test_predicted_against_measured(tiny, monkeypatch):
    config = tiny(space={"cells": ["successive", "multi_scale"], "steps": 2})
    given = []

    def fake(forwards, device, progress):
        given.append(len(forwards))
        return [float(number + 1) for number in range(len(forwards))]

    monkeypatch.setattr(latency_module, "measure", fake)
    prediction = check_prediction(config, 5)
    assert given == [3 * 3 + 1 + 5]  # side by side
    assert prediction.measured == [11.0, 12.0, 13.0, 14.0, 15.0]
    table = load_table(table_path(torch.device("cpu")), torch.device("cpu"))
    assert prediction.table == table_path(torch.device("cpu"))
    for genotype, predicted in zip(prediction.networks, prediction.predicted, strict=True):
        first, second = (cell.operators for cell in genotype.cells)
        shapes = ("2x16x16", "4x8x8", "8x4x4")
        assert predicted == pytest.approx(
            table["rest successive multi_scale 2 batch full direct 16x16"]
            + sum(table[f"{name} 2x16x16 batch"] for name in first)
            + sum(table[f"{name} {shape} batch"] for name in second for shape in shapes)
        )
    again = check_prediction(config, 5)
    assert given[1:] == [5]
    assert [genotype.cells for genotype in again.networks] == [genotype.cells for genotype in prediction.networks]
    other = check_prediction(config.model_copy(update={"seed": 1}), 5, fresh=True)
    assert given[2:] == [15]
    assert [genotype.cells for genotype in other.networks] != [genotype.cells for genotype in prediction.networks]


def test_figures_and_table(tiny, capsys):
    space = tiny().space
    networks = [space.genotype(name, "infrared-visible", [[name]]) for name in space.operators]
    prediction = Prediction(
        networks, [9.0, 22.0, 40.0], [10.0, 40.0, 20.0], "an abacus", table_path(torch.device("cpu"))
    )
    assert prediction.errors == [pytest.approx(-0.1), pytest.approx(-0.45), pytest.approx(1.0)]
    assert prediction.median_error == pytest.approx(0.45)
    assert prediction.correlation == pytest.approx(0.5)
    print_prediction(prediction)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-3:] for line in lines[1:4]] == [
        ["9.00", "10.00", "-10.0%"],
        ["40.00", "20.00", "+100.0%"],
        ["22.00", "40.00", "-45.0%"],
    ]
    assert lines[4] == "rank correlation 0.500, median error 45.0%, on an abacus"
    assert lines[5] == f"table     {prediction.table}"
