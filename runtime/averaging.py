"""The moving average of a network's weights during training."""

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Make an exponential moving average whose decay after n updates is min(decay, (1 + n) / (10 + n)).

    The smaller decay at the start lets the average forget the initial weights.

    Args:
        network: Network whose parameters and buffers are averaged.
        decay: Largest decay of the average, in [0, 1).

    Returns:
        The average, in evaluation mode. Call `update_parameters(network)` after each step.
    """

    def update(averages: Tensors, values: Tensors, count: Tensor | int) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, values, count)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True).eval()
