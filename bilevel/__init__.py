"""Hypergradients and differentiable inner loops for bilevel problems of any kind.

A bilevel problem is to minimise F(a, w*(a)) over a, where w*(a) minimises f(a, w) over w. Subscripts are partial
derivatives, such as F_a and f_ww. The hypergradient G is the derivative of F(a, w*(a)) by a. An estimator of G takes a
problem and one batch for each loss, and also returns f_w, the gradient for an ordinary training step of w.

Here the weight decay of a ridge regression is learned on validation data while the regression is trained:

>>> import torch
>>> from torch.nn.functional import mse_loss
>>> from timfuse.bilevel import BilevelProblem, conjugate_gradient
>>> _ = torch.manual_seed(0)
>>> x, truth = torch.randn(60, 20), torch.randn(20, 1)
>>> y = x @ truth + 3 * torch.randn(60, 1)
>>> training, validation = (x[:30], y[:30]), (x[30:], y[30:])
>>> model, log_decay = torch.nn.Linear(20, 1, bias=False), torch.tensor(0.0, requires_grad=True)
>>> def outer_loss(model, batch):
...     return mse_loss(model(batch[0]), batch[1])
>>> def inner_loss(model, batch):
...     return outer_loss(model, batch) + log_decay.exp() * model.weight.square().sum()
>>> problem = BilevelProblem(model, [log_decay], outer_loss, inner_loss)
>>> optimizer = torch.optim.Adam([log_decay, model.weight], lr=0.1)
>>> for _ in range(200):
...     estimate = conjugate_gradient(problem, validation, training, iterations=5)
...     log_decay.grad, model.weight.grad = *estimate.outer, *estimate.inner
...     optimizer.step()
>>> print(f"weight decay {log_decay.exp():.1f}, validation loss {outer_loss(model, validation):.1f}")
weight decay 2.5, validation loss 15.9

Estimators and meta-gradients by name:

>>> list(ESTIMATORS)
['first_order', 'gauss_newton', 'finite_difference', 'unrolled', 'neumann', 'conjugate_gradient']
>>> list(META_GRADIENTS)
['maml', 'fomaml', 'reptile', 'anil', 'imaml']
"""

from collections.abc import Callable

from ..runtime.errors import NonFiniteError
from .adaptation import Adaptation, adapt, layers_of, restored
from .conjugate_gradient import conjugate_gradient
from .finite_difference import finite_difference
from .first_order import first_order
from .gauss_newton import gauss_newton
from .hypergradient import Hypergradient
from .inner_loop import InnerLoop, inner_loop
from .meta_gradients import META_GRADIENTS, MetaGradient, anil, fomaml, imaml, maml, reptile
from .neumann import neumann
from .problem import BilevelProblem
from .unrolled import unrolled

ESTIMATORS: dict[str, Callable[..., Hypergradient]] = {
    "first_order": first_order,
    "gauss_newton": gauss_newton,
    "finite_difference": finite_difference,
    "unrolled": unrolled,
    "neumann": neumann,
    "conjugate_gradient": conjugate_gradient,
}

__all__ = [
    "ESTIMATORS",
    "META_GRADIENTS",
    "Adaptation",
    "BilevelProblem",
    "Hypergradient",
    "InnerLoop",
    "MetaGradient",
    "NonFiniteError",
    "adapt",
    "anil",
    "conjugate_gradient",
    "finite_difference",
    "first_order",
    "fomaml",
    "gauss_newton",
    "imaml",
    "inner_loop",
    "layers_of",
    "maml",
    "neumann",
    "reptile",
    "restored",
    "unrolled",
]
