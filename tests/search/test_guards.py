from dataclasses import replace

import pytest
import torch

from timfuse.cost import Decisions, SearchSpace
from timfuse.search.guards import Guards

OPERATORS = ("residual_k3_d1", "spatial_attention_k3", "identity", "channel_attention_k3")
SPACE = SearchSpace(4, ("successive",) * 2, 2, OPERATORS)
STAGES = replace(SPACE, cells=("stage",) * 2)
STEPS, WARMUP = 40, 10
UNIFORM = Decisions(torch.full((2, 2, 4), 0.25))


def leaning(index, probability=0.7, edges=4):
    """Probabilities of which the first `edges` prefer one operator; the others prefer the residual one."""
    probabilities = torch.full((4, 4), (1 - probability) / 3)
    probabilities[:, 0] = (1 - probability) / 3
    for edge in range(4):
        probabilities[edge, index if edge < edges else 0] = probability
    return Decisions(probabilities.view(2, 2, 4))


def deciding(step):
    """Probabilities that become sharper while the architecture moves."""
    sharpness = max(0, step - WARMUP) / 10
    logits = torch.zeros(2, 2, 4)
    logits[..., 0] = sharpness
    return Decisions(logits.softmax(-1))


def watch(guards, losses, probabilities, start=0):
    """Observe steps; return (step, warning) of each warning."""
    return [
        (step, warning)
        for step, loss in enumerate(losses, start)
        for warning in guards.observe(step, loss, probabilities(step))
    ]


def fresh():
    return Guards(SPACE, STEPS, WARMUP)


@pytest.mark.parametrize("given", [[None], 3])
def test_a_state_with_warnings_that_are_no_texts_is_refused(given):
    guards = fresh()
    with pytest.raises(TypeError):
        guards.load_state_dict(guards.state_dict() | {"given": given})


def test_a_healthy_run_is_left_alone():
    losses = [1.0 / (1 + 0.1 * step) + 0.2 * (step % 3) for step in range(STEPS)]
    assert watch(fresh(), losses, deciding) == []


def test_weights_that_diverge():
    losses = [1.0] * 20 + [200.0] * 20
    guards = fresh()
    warnings = watch(guards, losses, deciding)
    # Smoothed by 0.98 the loss goes 1, 4.98: above three times its best at the first large loss.
    assert [step for step, _ in warnings] == [20]
    assert warnings[0][1].startswith("weights diverge: at step 20 the smoothed loss is 4.98, its best was 1;")
    assert guards.given == [warnings[0][1]]


def test_a_negative_loss_may_fall_but_not_rise_far():
    assert watch(fresh(), [-2 - step / 50 for step in range(STEPS)], deciding) == []
    warnings = watch(fresh(), [-2.0] * 10 + [300.0] * 30, deciding)
    assert [step for step, _ in warnings] == [10]


def test_a_single_outlier_is_not_divergence():
    assert watch(fresh(), [1.0] * 20 + [50.0] + [1.0] * 19, deciding) == []


def test_divergence_is_noticed_during_the_warm_up():
    assert [step for step, _ in watch(fresh(), [1.0] * 5 + [500.0] * 5, deciding)] == [5]


@pytest.mark.parametrize("index", [1, 2])
def test_collapse_to_cheap_operators(index):
    warnings = watch(fresh(), [1.0] * STEPS, lambda step: leaning(index) if step >= 25 else deciding(step))
    assert [step for step, _ in warnings] == [25]
    assert warnings[0][1].startswith(
        f"collapse: operators without convolution ({OPERATORS[index]}) are alone in cell 1, cell 2;"
    )


@pytest.mark.parametrize("probabilities", [leaning(1, edges=1), leaning(0), leaning(3)])
def test_one_step_with_a_convolution_in_each_cell_is_no_collapse(probabilities):
    assert watch(fresh(), [1.0] * STEPS, lambda step: probabilities if step >= 25 else deciding(step)) == []


@pytest.mark.parametrize("edges", [2, 3])
def test_one_cell_without_a_convolution_is_a_collapse_unless_it_is_a_stage(edges):
    def probabilities(step):
        return leaning(2, edges=edges) if step >= 25 else deciding(step)

    ((step, warning),) = watch(fresh(), [1.0] * STEPS, probabilities)
    assert step == 25
    assert warning.startswith("collapse: operators without convolution (identity) are alone in cell 1;")
    assert watch(Guards(STAGES, STEPS, WARMUP), [1.0] * STEPS, probabilities) == []


def test_stages_of_which_none_has_a_convolution_are_a_collapse():
    guards = Guards(STAGES, STEPS, WARMUP)
    warnings = watch(guards, [1.0] * STEPS, lambda step: leaning(2) if step >= 25 else deciding(step))
    assert [(step, warning.split(":")[0]) for step, warning in warnings] == [(25, "collapse")]


def test_a_narrow_lead_of_cheap_operators_counts_at_the_last_step_alone():
    warnings = watch(fresh(), [1.0] * STEPS, lambda step: leaning(1, 0.4) if step >= 25 else deciding(step))
    assert [(step, warning.split(":")[0]) for step, warning in warnings] == [
        (STEPS - 1, "collapse"),
        (STEPS - 1, "undecided"),
    ]


def test_nothing_is_said_of_the_architecture_during_the_warm_up():
    guards = fresh()
    assert watch(guards, [1.0] * WARMUP, lambda step: leaning(1, 0.99)) == []


def test_entropy_that_does_not_fall_is_told_half_way():
    warnings = watch(fresh(), [1.0] * STEPS, lambda step: UNIFORM)
    assert [(step, warning.split(":")[0]) for step, warning in warnings] == [
        (25, "no decision"),
        (STEPS - 1, "undecided"),
    ]


WIDTHS = replace(SPACE, channels=((0, 2, 4), (2, 4, 6)), levels=(0, 1))


@pytest.mark.parametrize(("sharpness", "kinds"), [(0.0, ["no decision", "undecided"]), (1.0, [])])
def test_widths_are_decisions_too(sharpness, kinds):
    def probabilities(step):
        widths = torch.zeros(2, 3)
        widths[:, 0] = sharpness * max(0, step - WARMUP)
        operators = deciding(step) if sharpness else UNIFORM
        return Decisions(operators.operators, widths.softmax(-1))

    guards = Guards(WIDTHS, STEPS, WARMUP)
    assert [warning.split(":")[0] for _, warning in watch(guards, [1.0] * STEPS, probabilities)] == kinds


def test_what_is_undecided_at_the_end_is_named():
    even = torch.tensor([[0.2, 0.5, 0.3], [0.2, 0.2, 0.6]])
    (warning,) = Guards(WIDTHS, STEPS, WARMUP).observe(STEPS - 1, 1.0, Decisions(leaning(0).operators, even))
    assert warning.startswith("undecided: 1 of 6 decisions, such as level 0 width (2 0.50, 4 0.30);")
    (warning,) = Guards(SPACE, STEPS, WARMUP).observe(STEPS - 1, 1.0, leaning(0, 0.4))
    assert warning.startswith("undecided: 4 of 4 decisions, such as cell 1 step 1 (residual_k3_d1 0.40, ")
    assert "cell 2 step 1 (" in warning
    assert "cell 2 step 2 (" not in warning
    assert " and others;" in warning


def test_state_survives_a_checkpoint_at_any_step():
    losses = [1.0] * 20 + [200.0] * 20
    whole = fresh()
    expected = watch(whole, losses, lambda step: leaning(2, 0.4))
    assert len(expected) == 4
    for cut in range(STEPS + 1):
        first = fresh()
        before = watch(first, losses[:cut], lambda step: leaning(2, 0.4))
        second = fresh()
        second.load_state_dict(first.state_dict())
        after = watch(second, losses[cut:], lambda step: leaning(2, 0.4), start=cut)
        assert before + after == expected
        assert second.state_dict() == whole.state_dict()


def test_a_saved_state_does_not_change_with_what_is_seen_later():
    guards = fresh()
    state = guards.state_dict()
    watch(guards, [1.0] * 20 + [200.0], deciding)
    assert state["given"] == []
