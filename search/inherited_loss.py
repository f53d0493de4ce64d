"""The validation loss that a network has with the weights of a finished search's supernet, without any training."""

from collections.abc import Callable
from pathlib import Path

from ..cost import Choices
from ..operators import build_network, inherited_weights
from ..runtime.checkpoint import load_checkpoint, restoring
from ..runtime.config import load_config
from ..runtime.device import select_device
from ..runtime.distribution import ALONE
from ..runtime.run_files import CHECKPOINT_FILE, CONFIG_FILE
from .search_conclusion import RECALIBRATION_BATCHES, fused_by, validation_losses
from .search_config import SearchConfig
from .search_setup import open_parts, set_up
from .search_validation import recalibrate


def inherited_loss(run: Path) -> Callable[[Choices], float]:
    """Return the function that computes a network's outer loss on the validation crops with inherited weights.

    The weights tell networks apart where the search trained them on one sampled network at a time, with the mixture
    "gumbel" ("Single Path One-Shot", Guo et al., ECCV 2020). Weights of a softmax mixture favour networks that the
    mixture resembles.

    Args:
        run: The run folder of a single search by a fusion loss.

    Raises:
        UserError: If the run or its pairs cannot be read.

    Example:
        >>> inherited_loss(Path("runs/search"))(Choices([[0, 1], [2, 0]]))  # doctest: +SKIP
        -4.51
    """
    config = load_config(SearchConfig, run / CONFIG_FILE).model_copy(update={"run": run})
    space, device = config.space.search_space, select_device(config.device)
    parts, _ = open_parts(config, device, ALONE, resume=True)
    supernet = set_up(config, device).supernet
    with restoring(run):
        supernet.load_state_dict(load_checkpoint(run / CHECKPOINT_FILE)["state"]["supernet"])

    def loss(choices: Choices) -> float:
        network = build_network(space.genotype(choices)).to(device)
        network.load_state_dict(inherited_weights(supernet, choices.operators, network))
        if space.norm == "batch":
            recalibrate(network, parts.batches.weight(0, RECALIBRATION_BATCHES), parts.first_stage)
        return validation_losses(parts, fused_by(network.eval(), parts.first_stage))["outer_loss"]

    return loss
