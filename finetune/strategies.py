"""Strategies of guidance: how a downstream task sets the gradients of one step of the fusion network."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..bilevel import ESTIMATORS, BilevelProblem
from ..bilevel.isolation import frozen
from ..bilevel.options import Estimator, complete_options
from ..data import PairBatch
from ..downstream import GuidingDetectors, TaskNetwork
from ..objectives import FusionLoss
from ..objectives.content import object_content_loss
from ..objectives.learned import SourceWeights
from ..runtime.distribution import ALONE, Ranks
from ..runtime.errors import check_finite
from ..runtime.loop import Row
from .multiplier import Multiplier
from .promise import Promise
from .task_images import SOURCES, blend, shown


class Strategy:
    """The base of all strategies.

    Attributes:
        own: Modules that the strategy trains beside the fusion network and the task network.
        preparation: Number of steps before the fusion network and the task network are trained.
    """

    preparation = 0

    def __init__(self, network: nn.Module, loss: FusionLoss) -> None:
        self.network, self.loss = network, loss
        self.own: nn.Module = nn.ModuleDict()

    def fuse(self, network: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        """Return the images that the task network sees, (N, 1, H, W), not clipped and without colour."""
        return network(first, second)

    def shown(self, fused: Tensor, batch: PairBatch, channels: int) -> Tensor:
        """Return the planes that the task network sees of images that `fuse` returned; see `task_images.shown`."""
        return shown(fused, batch, channels)

    def backward(self, step: int, learning_rate: float, batch: PairBatch, fusion_batch: PairBatch) -> Row:
        """Set the gradients of a step and return the values to log.

        Each process does so for its part of the batches; the recipe averages gradients and values.

        Args:
            step: Number of finished steps, those of the preparation included.
            learning_rate: Learning rate of the fusion network in this step.
            batch: Crops that the networks see.
            fusion_batch: Crops for the fusion loss: others under `LearnedLoss`; under `Joint` and `Lagrangian` those of
                `batch` before they were corrupted, if they were.
        """
        raise NotImplementedError

    def buffers(self) -> Iterator[Tensor]:
        """Return the tensors that `backward` changes beside gradients, such as the running statistics of `own`."""
        return self.own.buffers()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a step changes beside the fusion network and the task network."""
        return {"own": self.own.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.own.load_state_dict(state["own"])


class FusionAlone(Strategy):
    """Training of the fusion network by the fusion loss, without a downstream task."""

    def backward(self, step: int, learning_rate: float, batch: PairBatch, fusion_batch: PairBatch) -> Row:
        fusion_loss = self.loss(self.network(batch.first, batch.second), batch.first, batch.second)
        fusion_loss.backward()
        return {"fusion_loss": fusion_loss.item()}


class Frozen(Strategy):
    """Training of the task network on images that do not change: from the fusion network, or without one.

    Args:
        images: Images of the task network: "fused", a key of `SOURCES`, or the folder of images that replace both
            sources.
        coloured: The source that has the colours, as in `shown`.
    """

    def __init__(
        self,
        network: nn.Module,
        task: TaskNetwork,
        loss: FusionLoss,
        images: str,
        *,
        coloured: str = "second",
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(network, loss)
        self.task = task
        self._images, self._coloured, self._ranks = images, coloured, ranks

    def fuse(self, network: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        with torch.no_grad():
            if self._images == "fused":
                return network(first, second)
            return SOURCES.get(self._images, SOURCES["first"])(first, second)

    def shown(self, fused: Tensor, batch: PairBatch, channels: int) -> Tensor:
        return shown(fused, batch, channels, images=self._images, coloured=self._coloured)

    def backward(self, step: int, learning_rate: float, batch: PairBatch, fusion_batch: PairBatch) -> Row:
        make = partial(blend, ranks=self._ranks) if self._images == "blend" else partial(self.fuse, self.network)
        images = self.shown(make(batch.first, batch.second), batch, self.task.channels)
        task_loss = self.task.loss(images, batch)
        task_loss.backward()
        return {"task_loss": task_loss.item()}


class Joint(Strategy):
    """Minimisation of L_F + weight L_T, the losses of the fusion and of the task network.

    The task network's own gradients are those of L_T, whatever its weight; see `smooth` for those of the fused image.

    Args:
        weight: Weight of L_T for the fusion network, >= 0.
    """

    def __init__(self, network: nn.Module, task: TaskNetwork, loss: FusionLoss, weight: float) -> None:
        super().__init__(network, loss)
        self.task = task
        self._weight = weight

    def backward(self, step: int, learning_rate: float, batch: PairBatch, fusion_batch: PairBatch) -> Row:
        fused = self.network(batch.first, batch.second)
        fusion_loss = self.loss(fused, fusion_batch.first, fusion_batch.second)
        if self._weight == 0 and not any(parameter.requires_grad for parameter in self.task.parameters()):
            fusion_loss.backward()  # a frozen task network, which may have no loss, scores alone
            return {"fusion_loss": fusion_loss.item()}
        task_loss = _task_loss(self.task, fused, batch, self._weight)
        (fusion_loss + task_loss).backward()
        return {"fusion_loss": fusion_loss.item(), "task_loss": task_loss.item()}


class Lagrangian(Strategy):
    """Minimisation of L_T under a bound on L_F, see `Promise`.

    The bound is on the difference between L_F and L_ref, the fusion loss of the network at the start on the same crops,
    because crops differ far more than the two networks do: g = (L_F - L_ref - (limit - start)) / spread <= 0 with the
    limit, the loss at the start and the spread of the promise. One step descends along L_T + mu g, and mu ascends; see
    `Multiplier`.

    Attributes:
        promise: The promise, which is set before the first step.

    Args:
        reference: Frozen copy of the fusion network at the start.
        rate: Step size of the ascent of mu, > 0.
        multiplier: Value of mu at the start, >= 0.
        ranks: Processes that share every batch; the constraint is on the loss of the whole batch.
    """

    def __init__(
        self,
        network: nn.Module,
        task: TaskNetwork,
        loss: FusionLoss,
        *,
        reference: nn.Module,
        rate: float,
        multiplier: float,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(network, loss)
        self.task = task
        self.promise: Promise | None = None
        self._reference, self._ranks = reference, ranks
        self._multiplier = Multiplier(rate, multiplier)

    def backward(self, step: int, learning_rate: float, batch: PairBatch, fusion_batch: PairBatch) -> Row:
        assert self.promise is not None
        with torch.no_grad():
            fused = self._reference(batch.first, batch.second)
            reference = self.loss(fused, fusion_batch.first, fusion_batch.second)
        fused = self.network(batch.first, batch.second)
        fusion_loss = self.loss(fused, fusion_batch.first, fusion_batch.second)
        reference, joined = self._ranks.average([reference, fusion_loss.detach()])
        excess = self.promise.excess(self.promise.start + (joined - reference).item())
        check_finite({"fusion loss": excess})
        multiplier = self._multiplier.value
        # The loss of the fusion network is divided by 1 + mu, so that the length of a step does not depend on mu.
        task_loss = _task_loss(self.task, fused, batch, 1 / (1 + multiplier))
        (task_loss + multiplier / (1 + multiplier) * (fusion_loss / self.promise.spread)).backward()
        self._multiplier.ascend(excess)
        return {
            "fusion_loss": fusion_loss.item(),
            "task_loss": task_loss.item(),
            "excess": excess,
            "multiplier": multiplier,
        }

    def buffers(self) -> Iterator[Tensor]:
        yield self._multiplier.buffer

    def state_dict(self) -> dict[str, Any]:
        return {"multiplier": self._multiplier.value, "reference": self._reference.state_dict(), **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._multiplier.buffer.fill_(state["multiplier"])
        self._reference.load_state_dict(state["reference"])


class LearnedLoss(Strategy):
    """The bilevel problem min_a L_T(w*(a)), w*(a) = argmin_w L_F(w; a): a fusion loss that serves the task.

    The outer variables are the weights of the two sources at each pixel in the fusion loss, and the task network, on
    which the inner loss does not depend. The inner variables are the weights of the fusion network.
    """

    def __init__(
        self,
        network: nn.Module,
        task: TaskNetwork,
        loss: FusionLoss,
        estimator: Estimator,
        options: Mapping[str, int | float],
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(network, loss)
        self.task = task
        self.own = SourceWeights().to(next(network.parameters()).device)
        self._estimator, self._options, self._ranks = estimator, options, ranks

    def backward(self, step: int, learning_rate: float, batch: PairBatch, fusion_batch: PairBatch) -> Row:
        outer = [*self.own.parameters(), *(p for p in self.task.parameters() if p.requires_grad)]
        problem = BilevelProblem(self.network, outer, self._outer_loss, self._inner_loss, self._ranks.average)
        weights = problem.inner_parameters
        options = complete_options(self._estimator, self._options, torch.optim.SGD(weights, lr=learning_rate))
        estimate = ESTIMATORS[self._estimator](problem, batch, fusion_batch, **options)
        inner = estimate.inner
        assert inner is not None
        for parameter, gradient in zip((*outer, *weights), (*estimate.outer, *inner), strict=True):
            parameter.grad = gradient
        diagnostics = dict(estimate.diagnostics)
        losses = {"fusion_loss": diagnostics.pop("inner_loss"), "task_loss": diagnostics.pop("outer_loss")}
        diagnostics.pop("ratio", None)  # of gradients that are nearly all the task network's
        with torch.no_grad():
            share = self.own(batch.first, batch.second)[0].mean().item()
        return losses | diagnostics | {"weight_of_first": share}

    def _outer_loss(self, network: nn.Module, batch: PairBatch) -> Tensor:
        return self.task.loss(shown(network(batch.first, batch.second), batch, self.task.channels), batch)

    def _inner_loss(self, network: nn.Module, batch: PairBatch) -> Tensor:
        weights = self.own(batch.first, batch.second)
        return self.loss(network(batch.first, batch.second), batch.first, batch.second, weights)


class DetFusion(Strategy):
    """Two detectors with shared attention, trained first, guide the fusion network; another learns on its images.

    Source: Sun et al., "DetFusion: A Detection-driven Infrared and Visible Image Fusion Network", ACM MM 2022.

    Args:
        task: Detector that learns on the fused images, on which the fusion network does not depend.
        weight: Weight of the detection loss of the fused image under the frozen detectors, >= 0.
        content: Weight of the object-aware content loss, >= 0.
        preparation: Number of steps that train the two detectors first.
    """

    def __init__(
        self,
        network: nn.Module,
        task: TaskNetwork,
        loss: FusionLoss,
        *,
        detectors: GuidingDetectors,
        weight: float,
        content: float,
        preparation: int,
    ) -> None:
        super().__init__(network, loss)
        self.task = task
        self.detectors = detectors
        self.own = detectors
        self.preparation = preparation
        self._weight, self._content = weight, content

    def fuse(self, network: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        with torch.no_grad():
            attention = self.detectors.eval().attention(first, second)
        return network(first, second, attention=attention)

    def backward(self, step: int, learning_rate: float, batch: PairBatch, fusion_batch: PairBatch) -> Row:
        if step < self.preparation:
            detector_loss = self.detectors.train().loss(batch)
            detector_loss.backward()
            return {"detector_loss": detector_loss.item()}
        assert batch.objects is not None
        fused = self.fuse(self.network, batch.first, batch.second)
        fusion_loss = self.loss(fused, batch.first, batch.second)
        content = object_content_loss(fused, batch.first, batch.second, [each.boxes for each in batch.objects])
        with frozen(tuple(self.detectors.parameters())):
            image = fused.clamp(0, 1)
            image.register_hook(smooth)
            guidance = self.detectors.guidance(image, batch)
            (fusion_loss + self._content * content + self._weight * guidance).backward()
        task_loss = self.task.loss(shown(fused.detach(), batch, self.task.channels), batch)
        task_loss.backward()
        return {
            "fusion_loss": fusion_loss.item(),
            "content": content.item(),
            "guidance": guidance.item(),
            "task_loss": task_loss.item(),
        }


def smooth(gradient: Tensor) -> Tensor:
    """Blur what a task network asks of an image, (N, 1, H, W), with the binomial kernel of three taps.

    Otherwise a fusion network learns to tell its task network things by patterns of single pixels, which people see as
    dots. The kernel lets nothing pass of what changes from pixel to pixel.

    Example:
        >>> dots = (-1.0) ** torch.arange(8).expand(1, 1, 8, 8)
        >>> smooth(dots)[..., 1:-1, 1:-1].abs().max().item(), smooth(torch.ones(1, 1, 4, 4)).mean().item()
        (0.0, 1.0)
    """
    taps = gradient.new_tensor([0.25, 0.5, 0.25])
    return F.conv2d(F.pad(gradient, (1, 1, 1, 1), mode="replicate"), torch.outer(taps, taps)[None, None])


def _task_loss(task: TaskNetwork, fused: Tensor, batch: PairBatch, weight: float) -> Tensor:
    """Return L_T; its gradient by the fused image, and by nothing else, is smooth and multiplied by a weight."""
    image = fused.clamp(0, 1)
    image.register_hook(lambda gradient: smooth(gradient) * weight)
    loss: Tensor = task.loss(shown(image, batch, task.channels), batch)
    return loss
