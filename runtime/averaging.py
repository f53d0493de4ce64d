"""The moving average of a network's weights over a training."""

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Make an exponential moving average that forgets its beginning: after n updates its decay is (1 + n) / (10 + n).

    Args:
        network: What to average, with its buffers.
        decay: The largest decay, in [0, 1).

    Returns:
        The average, in evaluation mode; call `update_parameters(network)` after each step.
    """

    def update(averages: Tensors, values: Tensors, count: Tensor | int) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, values, count)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True).eval()
