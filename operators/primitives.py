"""The operators of the search space: what a cell may be made of (TIM, section on the search space).

Every operator keeps the shape of its input (N, C, H, W) for any C, H and W.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activation import PReLU
from .depthwise import depthwise_convolution
from .normalisation import build_norm
from .pooling import GlobalMean
from .registration import build_registered

DENSE_SCALE = 0.333  # weight of the dense block's residual, as in the published networks
ATTENTION_ELEMENTS = 2**24  # entries of a non-local attention matrix held at a time: 64 MiB in float32


class Depthwise(nn.Conv2d):
    """A bias-free convolution with one output map per group, keeping height and width.

    Args:
        channels: C, number of output maps and of groups.
        kernel: 3, 5 or 7.
        dilation: 1 or 2.
        inputs: m, input maps of each group: (N, m C, H, W), and optionally a factor of the output, -> (N, C, H, W).
    """

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
    """A bias-free 1x1 convolution, as a matrix product over the channels on a CPU, where that is faster.

    Args:
        inputs: number of input maps.
        outputs: number of output maps.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        # There is a bias where a normalisation has been folded in.
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class Operator(nn.Module):
    """What every operator shares: an output made of a branch and, for some kinds, the input itself.

    `forward(x)` is the operator. `forward(x, scale)` is its branch alone times `scale`, a positive scalar tensor,
    folded into weights wherever that is exact; a mixture adds the inputs of all its candidates at once.
    """

    adds_input = False

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        branch = self.branch(x, scale)
        return branch + x if scale is None and self.adds_input else branch


class Dense(Operator):
    """Three depthwise convolutions on a growing concatenation, 0.333 x3 + x; one PReLU for all three.

    Args:
        channels: C, number of feature maps.
        kernel: 3, 5 or 7.
        dilation: 1 or 2.
    """

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
        # PReLU(s z) = s PReLU(z) for s > 0, so the factor moves into the weights.
        return self.activation(
            self.third(torch.cat((x, x1, x2), 1), DENSE_SCALE if scale is None else DENSE_SCALE * scale)
        )


class Residual(Operator):
    """Depthwise, depthwise 3x3 of dilation 2, pointwise, norm, PReLU, + x.

    Args:
        channels: C, number of feature maps.
        kernel: 3, 5 or 7, of the first convolution.
        dilation: 1 or 2, of the first convolution.
        norm: "batch", "group" or "none".
    """

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
    """ReLU, depthwise, pointwise, norm, + x.

    Args:
        channels: C, number of feature maps.
        kernel: 3, 5 or 7.
        dilation: 1 or 2.
        norm: "batch", "group" or "none".
    """

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
    """Twice (ReLU, depthwise, pointwise, norm).

    Args:
        channels: C, number of feature maps.
        kernel: 3, 5 or 7.
        norm: "batch", "group" or "none".
    """

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
    """Efficient channel attention (global mean, 1-d convolution over the channels, sigmoid), 3x3, PReLU.

    Args:
        channels: C, number of feature maps.
        kernel: 3, 5 or 7, of the convolution over the channels.
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
    """A sigmoid gate per pixel from the maximum and the mean over the channels.

    Args:
        kernel: 3, 5 or 7.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def branch(self, x: Tensor, scale: Tensor | None) -> Tensor:
        return self.mixed_branch([self], x, [scale])

    @staticmethod
    def mixed_branch(operators: Sequence["SpatialAttention"], x: Tensor, scales: Sequence[Tensor | None]) -> Tensor:
        """Sum the scaled branches of several spatial attentions on one input, pooling it and gating it once."""
        pooled = torch.cat((x.max(1, keepdim=True).values, x.mean(1, keepdim=True)), 1)  # (N, 2, H, W)
        gates = [operator.gate(pooled).sigmoid() for operator in operators]
        scaled = [gate if scale is None else gate * scale for gate, scale in zip(gates, scales, strict=True)]
        return x * torch.stack(scaled).sum(0)


class NonLocal(Operator):
    """3x3, PReLU, non-local block, + the 3x3's output, kxk, PReLU.

    The published block normalises its attention over the queries, not over the keys; so does this one.
    Time grows with (H W)^2, so it suits small inputs; the attention matrix is made in strips of bounded size.

    Args:
        channels: C, number of feature maps.
        kernel: 3, 5 or 7, of the last convolution.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.query = Pointwise(channels, channels)
        self.key = Pointwise(channels, channels)
        self.value = Pointwise(channels, channels)
        self.output = Pointwise(channels, channels)
        nn.init.zeros_(self.output.weight)  # starts as the identity, as in the published block
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


def build_primitive(kind: str, channels: int, kernel: int, dilation: int, norm: str) -> nn.Module:
    """Build one operator from the parts of its name.

    Args:
        kind: family of the operator, e.g. "residual", or a registered one.
        channels: C, number of feature maps, at least 1.
        kernel: 3, 5 or 7; ignored by "identity".
        dilation: 1 or 2; ignored by the operators that carry none in their name.
        norm: "batch", "group" or "none"; ignored by the operators without normalisation.

    Returns:
        A module that maps (N, C, H, W) to the same shape.
    """
    match kind:
        case "dense":
            return Dense(channels, kernel, dilation)
        case "residual":
            return Residual(channels, kernel, dilation, norm)
        case "dilated":
            return Dilated(channels, kernel, dilation, norm)
        case "separable":
            return Separable(channels, kernel, norm)
        case "channel_attention":
            return ChannelAttention(channels, kernel)
        case "spatial_attention":
            return SpatialAttention(kernel)
        case "non_local":
            return NonLocal(channels, kernel)
        case "identity":
            return nn.Identity()
    return build_registered(kind, channels=channels, kernel=kernel, dilation=dilation, norm=norm)
