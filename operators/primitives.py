"""The operators of the search spaces, those of TIM among them, by their kind.

Each maps (N, C, H, W) to the same shape, for any N, C, H and W. Its constructor takes what it needs of `channels`, the
number C; `kernel`, a size of 3, 5 or 7 pixels; `dilation`, 1 or 2 pixels; and `norm`, "batch", "group" or "none".
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activation import PReLU
from .borders import repeated
from .depthwise import depthwise_convolution
from .normalisation import build_norm
from .pooling import GlobalMean

DENSE_SCALE = 0.333  # weight of the branch of the dense operator, as in the published networks
ATTENTION_ELEMENTS = 2**24  # of a non-local attention matrix in memory at a time: 64 MiB in float32


class Depthwise(nn.Conv2d):
    """Convolve each group of `inputs` feature maps to one map of the same size, without bias."""

    def __init__(self, channels: int, kernel: int, dilation: int = 1, inputs: int = 1) -> None:
        super().__init__(
            inputs * channels,
            channels,
            kernel,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=channels,
            bias=False,
        )

    def forward(self, x: Tensor, scale: Tensor | float | None = None) -> Tensor:
        weight = self.weight if scale is None else self.weight * scale
        return depthwise_convolution(x, weight, self.dilation[0])


class Pointwise(nn.Conv2d):
    """Convolve with 1x1 kernels without bias. On a CPU this is a matrix product over the channels, which is faster."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        # Folding a normalisation in adds a bias.
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class Operator(nn.Module):
    """Base of the operators: a branch, plus the input where `adds_input` is set.

    `forward(x)` is the operator. `forward(x, scale)` is its branch times the positive scalar tensor `scale`; a mixture
    adds the inputs of all its candidates at once.
    """

    adds_input = False

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        """Compute the branch times a scale, which moves into weights wherever that is exact."""
        raise NotImplementedError

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        branch = self.branch(x, scale)
        return branch + x if scale is None and self.adds_input else branch


def added(operator: nn.Module, x: Tensor) -> Tensor:
    """Add an operator to its input once: the input of an operator that adds it itself, or is the identity, no more."""
    if isinstance(operator, nn.Identity):
        return x
    y: Tensor = operator(x)
    return y if isinstance(operator, Operator) and operator.adds_input else x + y


class Dense(Operator):
    """Three depthwise convolutions on a growing concatenation, with one PReLU for all: 0.333 x3 + x."""

    adds_input = True

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.first = Depthwise(channels, kernel, dilation)
        self.second = Depthwise(channels, kernel, dilation, inputs=2)
        self.third = Depthwise(channels, kernel, dilation, inputs=3)
        self.activation = PReLU()

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        x1 = self.activation(self.first(x))
        x2 = self.activation(self.second(torch.cat((x, x1), 1)))
        # PReLU(s z) = s PReLU(z) for s > 0.
        return self.activation(
            self.third(torch.cat((x, x1, x2), 1), DENSE_SCALE if scale is None else DENSE_SCALE * scale)
        )


class Residual(Operator):
    """Depthwise, depthwise 3x3 of dilation 2, pointwise, norm, PReLU, + x."""

    adds_input = True

    def __init__(self, channels: int, kernel: int, dilation: int, norm: str) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            Depthwise(channels, kernel, dilation), Depthwise(channels, 3, 2), Pointwise(channels, channels)
        )
        self.norm = build_norm(norm, channels)
        self.activation = PReLU()

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        return self.activation(self.norm(self.convolutions(x), scale))


class Dilated(Operator):
    """ReLU, depthwise, pointwise, norm, + x."""

    adds_input = True

    def __init__(self, channels: int, kernel: int, dilation: int, norm: str) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.ReLU(), Depthwise(channels, kernel, dilation), Pointwise(channels, channels)
        )
        self.norm = build_norm(norm, channels)

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        return self.norm(self.convolutions(x), scale)


class Separable(Operator):
    """ReLU, depthwise, pointwise, norm, and the same again."""

    def __init__(self, channels: int, kernel: int, norm: str) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.ReLU(),
            Depthwise(channels, kernel),
            Pointwise(channels, channels),
            build_norm(norm, channels),
            nn.ReLU(),
            Depthwise(channels, kernel),
            Pointwise(channels, channels),
        )
        self.norm = build_norm(norm, channels)

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        return self.norm(self.convolutions(x), scale)


class ChannelAttention(Operator):
    """Efficient channel attention, 3x3, PReLU.

    The attention is the sigmoid of a 1-d convolution of `kernel` taps over the means of the channels.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.pool = GlobalMean()
        self.gate = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.activation = PReLU()

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        mean = self.pool(x).flatten(2).transpose(1, 2)  # (N, 1, C)
        gate = self.gate(mean).sigmoid().transpose(1, 2).unsqueeze(-1)  # (N, C, 1, 1)
        return self.activation(self.convolution(x * (gate if scale is None else gate * scale)))


class SpatialAttention(Operator):
    """The input times a sigmoid gate for each pixel, from the maximum and the mean over the channels."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        return self.mixed_branch([self], x, [scale])

    @staticmethod
    def mixed_branch(operators: Sequence["SpatialAttention"], x: Tensor, scales: Sequence[Tensor | None]) -> Tensor:
        """Sum the scaled branches of several spatial attentions on one input, which is pooled and gated once."""
        pooled = torch.cat((x.max(1, keepdim=True).values, x.mean(1, keepdim=True)), 1)  # (N, 2, H, W)
        gates = [operator.gate(pooled).sigmoid() for operator in operators]
        scaled = [gate if scale is None else gate * scale for gate, scale in zip(gates, scales, strict=True)]
        return x * torch.stack(scaled).sum(0)


class NonLocal(Operator):
    """3x3, PReLU, non-local block, + the output of the 3x3, kxk, PReLU.

    As in the published block, the attention is normalised over the queries and not over the keys. Time grows with
    (H W)². The attention matrix is computed in strips, so that its memory is bounded.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.query = Pointwise(channels, channels)
        self.key = Pointwise(channels, channels)
        self.value = Pointwise(channels, channels)
        self.output = Pointwise(channels, channels)
        nn.init.zeros_(self.output.weight)  # the block starts as the identity, as in the published one
        self.exit = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.activation = PReLU()

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        entry = self.entry(x)
        features = self.activation(entry)
        query = self.query(features).flatten(2)  # (N, C, HW)
        key = self.key(features).flatten(2)
        value = self.value(features).flatten(2)
        strip = max(1, ATTENTION_ELEMENTS // (query.shape[0] * query.shape[2]))
        attended = torch.zeros_like(query)
        for keys, values in zip(key.split(strip, 2), value.split(strip, 2), strict=True):
            attention = (query.transpose(1, 2) @ keys).softmax(1)  # (N, HW, strip)
            attended = attended + values @ attention.transpose(1, 2)  # (N, C, HW)
        attended = self.output(attended.unflatten(2, features.shape[2:])) + features
        output = self.activation(self.exit(attended + entry))
        return output if scale is None else output * scale


class Plain(Operator):
    """kxk with repeated borders, norm, PReLU."""

    def __init__(self, channels: int, kernel: int, norm: str) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(repeated(channels, channels, kernel))
        self.norm = build_norm(norm, channels)
        self.activation = PReLU()

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        return self.activation(self.norm(self.convolutions(x), scale))


class Inverted(Operator):
    """The inverted residual: pointwise to twice the channels, PReLU, depthwise, PReLU, pointwise back, norm, + x."""

    adds_input = True

    def __init__(self, channels: int, kernel: int, norm: str) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            Pointwise(channels, 2 * channels),
            PReLU(),
            Depthwise(2 * channels, kernel),
            PReLU(),
            Pointwise(2 * channels, channels),
        )
        self.norm = build_norm(norm, channels)

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        return self.norm(self.convolutions(x), scale)


PRIMITIVES: dict[str, Callable[..., nn.Module]] = {
    "dense": Dense,
    "residual": Residual,
    "dilated": Dilated,
    "separable": Separable,
    "channel_attention": ChannelAttention,
    "spatial_attention": SpatialAttention,
    "non_local": NonLocal,
    "plain": Plain,
    "inverted": Inverted,
    "identity": nn.Identity,
}
