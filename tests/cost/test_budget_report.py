import pytest

from timfuse.cost import BudgetReport
from timfuse.genotypes import CellGenotype, Genotype
from timfuse.runtime.errors import UserError


def genotype(**provenance):
    return Genotype(
        "x", "infrared-visible", "fusion", 2, (CellGenotype("successive", ("identity",)),), provenance=provenance
    )


def test_the_report_of_a_missed_budget_comes_back_from_the_provenance():
    report = BudgetReport("20 ms", "ms", 19.5, 20.3, False, "space.channels=4 would meet it (9 ms)")
    assert BudgetReport.of(genotype(budget=report.provenance)) == report
    assert str(report) == "20 ms: predicted 19.5 ms, measured 20.3 ms"
    with pytest.raises(UserError) as caught:
        report.check()
    assert str(caught.value) == (
        "the network that was found takes 20.3 ms, 0.3 ms above cost.budget = 20 ms; "
        "space.channels=4 would meet it (9 ms)"
    )


def test_the_report_of_a_budget_that_is_met():
    report = BudgetReport("50kparams", "params", 49_000, 49_000, True)
    assert "advice" not in report.provenance
    assert BudgetReport.of(genotype(budget=report.provenance)) == report
    assert str(report) == "50kparams: predicted 49 kparams, counted 49 kparams"
    report.check()


def test_a_search_without_a_budget_has_no_report():
    assert BudgetReport.of(genotype()) is None
