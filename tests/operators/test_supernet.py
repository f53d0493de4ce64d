"""A supernet: with one-hot probabilities it is the derived network, and hypergradients go through it."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import mse_loss

from timfuse.bilevel import ESTIMATORS, BilevelProblem, conjugate_gradient, unrolled
from timfuse.genotypes import CellGenotype, Genotype
from timfuse.operators import build_network, build_supernet, inherited_weights
from timfuse.runtime.errors import UserError

CANDIDATES = [
    "residual_k3_d1", "dense_k5_d2", "dilated_k3_d2", "separable_k3",
    "channel_attention_k3", "spatial_attention_k5", "non_local_k3", "identity",
]  # fmt: skip
CHOICES = [[0, 4], [2, 1], [3, 5], [7, 6]]


def described(kind, names, level=None):
    """The genotype of a cell, which names the blocks of a stage alone."""
    blocks = tuple(name for name in names if kind != "stage" or name != "identity")
    return CellGenotype(kind, blocks, level=level)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stem", ["full", "half"])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("cells", [["successive", "multi_scale"], ["decomposition", "stage"]])
@pytest.mark.parametrize("choices", [CHOICES[:2], CHOICES[2:]])
def test_one_hot_supernet_is_the_derived_network(randomise, normal, choices, cells, norm, stem, training):
    supernet = randomise(build_supernet(channels=4, cells=cells, steps=2, candidates=CANDIDATES, norm=norm, stem=stem))
    chosen = tuple(
        described(kind, [CANDIDATES[index] for index in indices]) for kind, indices in zip(cells, choices, strict=True)
    )
    genotype = Genotype("derived", "infrared-visible", "fusion", 4, chosen, norm=norm, stem=stem)
    network = build_network(genotype).double()
    network.load_state_dict(inherited_weights(supernet, choices, network))
    supernet.train(training)
    network.train(training)
    first, second = normal(2, 1, 9, 14), normal(2, 1, 9, 14, seed=1)
    probabilities = torch.eye(len(CANDIDATES), dtype=torch.float64)[torch.tensor(choices)]
    expected = network(first, second)
    torch.testing.assert_close(supernet(first, second, probabilities), expected, rtol=1e-7, atol=1e-7)
    for key, tensor in inherited_weights(supernet, choices, network).items():
        torch.testing.assert_close(tensor, network.state_dict()[key], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("choices", [CHOICES, CHOICES[::-1]])
def test_one_hot_supernet_of_a_pyramid_is_the_derived_network(randomise, normal, choices):
    kinds, levels = ["stage", "multi_scale", "decomposition", "stage"], [1, 0, 1, 0]
    names = ["plain_k3", *CANDIDATES[1:]]
    supernet = build_supernet(channels=(4, 6), cells=kinds, levels=levels, steps=2, candidates=names, norm="none")
    randomise(supernet)
    cells = tuple(
        described(kind, [names[index] for index in indices], level)
        for kind, level, indices in zip(kinds, levels, choices, strict=True)
    )
    genotype = Genotype("derived", "infrared-visible", "pyramid", (4, 6), cells, "none", "half", "bands")
    network = build_network(genotype).double()
    network.load_state_dict(inherited_weights(supernet, choices, network))
    first, second = normal(2, 1, 9, 14), normal(2, 1, 9, 14, seed=1)
    probabilities = torch.eye(len(names), dtype=torch.float64)[torch.tensor(choices)]
    fused = supernet(first, second, probabilities)
    torch.testing.assert_close(fused, network(first, second), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("merge", ["gated", "concat"])
@pytest.mark.parametrize("choices", [CHOICES, CHOICES[::-1]])
def test_one_hot_supernet_of_refine_networks_is_the_derived_network(randomise, normal, choices, merge):
    kinds, sources = ["successive", "stage", "multi_scale", "decomposition"], ["first", "second", "second", "second"]
    supernet = build_supernet(channels=4, cells=kinds, steps=2, candidates=CANDIDATES, sources=sources, merge=merge)
    randomise(supernet)
    cells = tuple(
        replace(described(kind, [CANDIDATES[index] for index in indices]), source=source)
        for kind, source, indices in zip(kinds, sources, choices, strict=True)
    )
    network = build_network(Genotype("derived", "infrared-visible", "refine", 4, cells, merge=merge)).double()
    network.load_state_dict(inherited_weights(supernet, choices, network))
    images = [normal(2, 1, 9, 14, seed=seed) for seed in range(3)]
    probabilities = torch.eye(len(CANDIDATES), dtype=torch.float64)[torch.tensor(choices)]
    torch.testing.assert_close(supernet(*images, probabilities), network(*images), rtol=1e-7, atol=1e-7)


def test_inherited_weights_are_those_of_the_supernet_itself():
    supernet = build_supernet(channels=4, cells=["multi_scale"], steps=2, candidates=CANDIDATES)
    owned = {tensor.data_ptr() for tensor in supernet.state_dict().values()}
    cells = (CellGenotype("multi_scale", (CANDIDATES[0], CANDIDATES[4])),)
    network = build_network(Genotype("derived", "infrared-visible", "fusion", 4, cells))
    weights = inherited_weights(supernet, [[0, 4]], network)
    assert all(tensor.data_ptr() in owned for tensor in weights.values())


def test_unknown_candidates_are_refused():
    with pytest.raises(UserError, match="unknown operator 'dense_k9_d1'"):
        build_supernet(channels=4, cells=["successive"], steps=1, candidates=["dense_k9_d1"])


class Search:
    """A bilevel problem on a small supernet in float64: logits outside, weights inside."""

    def __init__(self, randomise, normal, cells, candidates, norm, channels=2):
        self.supernet = randomise(
            build_supernet(channels=channels, cells=cells, steps=1, candidates=candidates, norm=norm)
        )
        self.logits = (0.3 * normal(len(cells), 1, len(candidates), seed=7)).requires_grad_()
        self.batches = [[normal(2, 1, 5, 4, seed=3 * k + j) for j in range(3)] for k in range(2)]
        self.problem = BilevelProblem(self.supernet, [self.logits], self.loss, self.loss)

    def loss(self, supernet, batch):
        first, second, target = batch
        return mse_loss(supernet(first, second, self.logits.softmax(-1)), target)

    def after_descent(self, logits, lr, steps):
        """F at the weights that plain gradient descent reaches under other logits."""
        outer, inner = self.batches
        original, module = self.logits.data, copy.deepcopy(self.supernet)
        optimizer = torch.optim.SGD(module.parameters(), lr=lr)
        self.logits.data = logits
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss(module, inner).backward()
            optimizer.step()
        F = self.loss(module, outer).item()
        self.logits.data, self.logits.grad = original, None
        return F

    def slopes(self, evaluate, step=1e-6):
        """Central differences of a function of the logits, one by one."""
        slopes = torch.zeros_like(self.logits)
        for index in range(self.logits.numel()):
            change = torch.zeros_like(self.logits)
            change.view(-1)[index] = step
            base = self.logits.detach()
            slopes.view(-1)[index] = (evaluate(base + change) - evaluate(base - change)) / (2 * step)
        return slopes


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("cells", [["successive"], ["multi_scale"], ["decomposition"]])
def test_unrolled_hypergradient_is_the_slope_after_descent(randomise, normal, cells, norm):
    search = Search(randomise, normal, cells, CANDIDATES, norm)
    before = copy.deepcopy(search.supernet.state_dict())
    optimizer = torch.optim.SGD(search.supernet.parameters(), lr=0.05)
    estimate = unrolled(search.problem, *search.batches, optimizer=optimizer, steps=2)
    slopes = search.slopes(lambda logits: search.after_descent(logits, lr=0.05, steps=2))
    torch.testing.assert_close(estimate.outer[0], slopes, rtol=1e-5, atol=1e-6 * slopes.abs().max().item())
    for key, tensor in search.supernet.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_implicit_hypergradient_solves_the_dense_system(randomise, normal):
    candidates = ["residual_k3_d1", "dense_k3_d1", "spatial_attention_k3", "identity"]
    search = Search(randomise, normal, ["successive"], candidates, "group")
    outer, inner = search.batches
    supernet, weights = search.supernet, list(search.supernet.parameters())

    def gradients(batch):  # by the logits and by the weights
        variables = [search.logits, *weights]
        flat = [g.flatten() for g in torch.autograd.grad(search.loss(supernet, batch), variables)]
        return flat[0], torch.cat(flat[1:])

    F_a, F_w = gradients(outer)
    columns, step = [], 1e-5
    for weight in weights:
        for index in itertools.product(*map(range, weight.shape)):
            entry = weight.data[index].clone()
            sides = []
            for sign in (1, -1):
                weight.data[index] = entry + sign * step
                sides.append(torch.cat(gradients(inner)))
            weight.data[index] = entry
            columns.append((sides[0] - sides[1]) / (2 * step))
    f_aw, f_ww = torch.stack(columns, 1).split([len(F_a), len(F_w)])
    damping = 0.5 - min(0.0, torch.linalg.eigvalsh((f_ww + f_ww.T) / 2)[0].item())
    q = torch.linalg.solve(f_ww + damping * torch.eye(len(F_w), dtype=F_w.dtype), F_w)
    estimate = conjugate_gradient(search.problem, outer, inner, iterations=300, damping=damping, tolerance=1e-12)
    torch.testing.assert_close(estimate.outer[0].flatten(), F_a - f_aw @ q, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_every_estimator_sees_every_candidate_where_one_is_chosen(randomise, normal, norm, estimator):
    search = Search(randomise, normal, ["successive"], CANDIDATES, norm, channels=6)
    one_hot = torch.eye(len(CANDIDATES), dtype=torch.float64)[[0]].unsqueeze(0).requires_grad_()

    def loss(supernet, batch):
        return mse_loss(supernet(*batch[:2], one_hot), batch[2])

    problem = BilevelProblem(search.supernet, [one_hot], loss, loss)
    (hypergradient,) = ESTIMATORS[estimator](problem, *search.batches).outer
    assert hypergradient.isfinite().all()
    assert (hypergradient != 0).all()
