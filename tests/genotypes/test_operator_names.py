"""The ids of operators: what there is, reading and writing them, and what a wrong one is told."""

import pytest

from timfuse.genotypes import ALL_OPERATORS, OPERATOR_KINDS, OperatorKind, OperatorName, parse_operator
from timfuse.runtime.errors import UserError


def test_the_search_space_holds_every_combination_once():
    assert len(ALL_OPERATORS) == len(set(ALL_OPERATORS)) == 3 * 6 + 4 * 3 + 2 * 2 + 1
    assert ALL_OPERATORS[0] == "dense_k3_d1"
    assert ALL_OPERATORS[-1] == "identity"


@pytest.mark.parametrize("identifier", ALL_OPERATORS)
def test_ids_come_back(identifier):
    assert str(parse_operator(identifier)) == identifier


@pytest.mark.parametrize(
    ("identifier", "words"),
    [
        ("residual_k3_d1", "residual 3×3"),
        ("dilated_k5_d2", "dilated 5×5, dilation 2"),
        ("channel_attention_k3", "channel attention 3"),
        ("spatial_attention_k7", "spatial attention 7×7"),
        ("non_local_k5", "non-local 5×5"),
        ("plain_k3", "plain 3×3"),
        ("inverted_k5", "inverted residual 5×5"),
        ("identity", "identity"),
    ],
)
def test_in_words(identifier, words):
    assert parse_operator(identifier).in_words == words


@pytest.mark.parametrize(
    ("identifier", "told"),
    [
        ("residul_k3_d1", "did you mean 'residual_k3_d1'?"),
        ("residual_k4_d1", "allowed: residual_k{3,5,7}_d{1,2}"),
        ("channel_attention_k3_d2", "allowed: channel_attention_k{3,5,7}"),
        ("Dense_K3_D1", "did you mean 'dense_k3_d1'?"),
        ("identity_k3", "allowed: identity"),
        ("", "non_local_k{3,5,7}, plain_k{3,5}, inverted_k{3,5}, identity"),
        ("blur_k3", "identity; an operator of your own needs --operators FILE"),
        ("residual_mine_k3", "needs --operators FILE"),
        (3, "is not the id of an operator"),
        (["dense_k3_d1"], "is not the id of an operator"),
    ],
)
def test_a_wrong_id_is_told_what_is_right(identifier, told):
    with pytest.raises(UserError) as error:
        parse_operator(identifier, "cells[1].operators[0]")
    message = str(error.value)
    assert message.startswith("cells[1].operators[0]: ")
    assert repr(identifier) in message
    assert told in message
    assert "\n" not in message


def test_a_wrong_size_of_a_known_kind_does_not_look_like_an_operator_of_ones_own():
    with pytest.raises(UserError, match=r"allowed: residual_k\{3,5,7\}_d\{1,2\}$"):
        parse_operator("residual_k4_d1")


def test_a_kind_added_to_the_table_is_an_operator(monkeypatch):
    monkeypatch.setitem(OPERATOR_KINDS, "blur", OperatorKind("blur", kernels=(9,)))
    assert parse_operator("blur_k9") == OperatorName("blur", 9)
    assert parse_operator("blur_k9").in_words == "blur 9×9"
