import pytest
from hypothesis import given
from hypothesis import strategies as st

from timfuse.cost import parse_budget
from timfuse.cost.budget import format_cost


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("10ms", "ms", 10),
        (" 7.5 MS ", "ms", 7.5),
        ("1.5s", "ms", 1500),
        (".5 s", "ms", 500),
        ("2e1ms", "ms", 20),
        ("5GFLOPs", "FLOPs", 5e9),
        ("5 gflops", "FLOPs", 5e9),
        ("300 M FLOPs", "FLOPs", 3e8),
        ("1flop", "FLOPs", 1),
        ("2 TFLOPs", "FLOPs", 2e12),
        ("50kparams", "params", 5e4),
        ("1.2 Mparams", "params", 1.2e6),
        ("912 params", "params", 912),
        ("1 parameter", "params", 1),
        ("3KPARAMETERS", "params", 3000),
    ],
)
def test_budgets_as_users_write_them(text, kind, amount):
    budget = parse_budget(text)
    assert (budget.text, budget.kind) == (text, kind)
    assert budget.amount == pytest.approx(amount, rel=1e-15)


@pytest.mark.parametrize(
    "text",
    ["", "10", "ms", "5G", "10 m s", "0ms", "-1ms", "infms", "1e999ms", "10msec", "5kms", "1,000params", "5GMACs"],
)
def test_what_is_no_budget(text):
    with pytest.raises(ValueError, match=r"^must be a number above 0 with its unit, like 10ms, 5GFLOPs or 50kparams$"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("kind", "amount", "text"),
    [
        ("ms", 7.3126, "7.313 ms"),
        ("ms", 123456.7, "123457 ms"),
        ("ms", 0.01234, "0.01234 ms"),
        ("FLOPs", 5.2e9, "5.2 GFLOPs"),
        ("FLOPs", 12, "12 FLOPs"),
        ("FLOPs", 4.2e15, "4200 TFLOPs"),
        ("params", 50_123, "50.12 kparams"),
        ("params", 1_200_000, "1.2 Mparams"),
        ("params", 0, "0 params"),
    ],
)
def test_costs_as_users_read_them(kind, amount, text):
    assert format_cost(kind, amount) == text


@given(st.sampled_from(["ms", "FLOPs", "params"]), st.integers(1, 9999), st.integers(0, 3))
def test_what_is_written_can_be_read(kind, digits, thousands):
    amount = digits * 1000.0**thousands
    again = parse_budget(format_cost(kind, amount))
    assert again.kind == kind
    assert again.amount == pytest.approx(amount, rel=1e-12)
