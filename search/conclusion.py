"""The end of a search: the derived network, what it measures, and the files that hold it."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from .. import __version__
from ..data import Splits
from ..downstream import keep_task_network
from ..genotypes import CellGenotype, Genotype, draw, save_genotype
from ..objectives import FusionLoss
from ..objectives.section import LossSection
from ..operators import (
    FusionNetwork,
    build_network,
    count_flops,
    count_parameters,
    inherited_weights,
    parameter_sizes,
)
from ..runtime.config import config_hash
from ..runtime.device import device_name
from ..runtime.history import HISTORY_FILE, read_history
from ..runtime.weights import save_weights
from .config import SearchConfig, SearchSection
from .discretise import choose, reasons
from .latency import measure_network
from .pictures import draw_probabilities
from .scorer import Scorer
from .streams import Batch, Streams
from .validation import mean_losses, recalibrate

RECALIBRATION_BATCHES = 20


def validation_losses(
    settings: SearchSection,
    fuse: Callable[[Tensor, Tensor], Tensor],
    streams: Streams,
    scorer: Scorer | None = None,
) -> dict[str, float]:
    """Average both losses of a search over the validation batches.

    Args:
        settings: holds the losses.
        fuse: makes the fused images of first and second.
        streams: holds the batches.
        scorer: whose loss is the outer one; None for that of the settings.

    Returns:
        `inner_loss` and `outer_loss`.
    """
    losses = {
        "inner_loss": _of_batches(settings.inner_loss),
        "outer_loss": _of_batches(settings.outer_loss) if scorer is None else scorer.loss,
    }
    with nullcontext() if scorer is None else scorer.evaluating():
        return mean_losses(lambda batch: fuse(batch.first, batch.second), streams.validation(), losses)


def _of_batches(section: LossSection) -> Callable[[Tensor, Any], Tensor]:
    loss = FusionLoss(**section.model_dump())

    def evaluate(fused: Tensor, batch: Batch) -> Tensor:
        return loss(fused, batch.first, batch.second)

    return evaluate


def conclude(
    config: SearchConfig,
    supernet: FusionNetwork,
    probabilities: Tensor,
    streams: Streams,
    splits: Splits,
    warnings: list[str],
    scorer: Scorer | None,
) -> Genotype:
    """Derive the network, measure it and write everything that belongs to it; the genotype comes last.

    Args:
        config: of the search.
        supernet: with its searched weights.
        probabilities: (cells, steps, candidates) at the end.
        streams: the batches.
        splits: which pairs were for what.
        warnings: what the guards said on the way.
        scorer: what scored the architecture, if not fusion alone.

    Returns:
        The genotype with its provenance, as in `genotype.yaml`.
    """
    run, space, device = config.run, config.space, probabilities.device
    choices = choose(probabilities)
    genotype = Genotype(
        name=run.resolve().name,  # "." has no name of its own
        task=config.task,
        network="fusion",
        channels=space.channels,
        cells=tuple(
            CellGenotype(kind, tuple(space.operators[index] for index in row))
            for kind, row in zip(space.cells, choices, strict=True)
        ),
        norm=space.norm,
        stem=space.stem,
        head=space.head,
    )
    network = build_network(genotype).to(device)
    network.load_state_dict(inherited_weights(supernet, choices))
    recalibrate(network, streams.weight(0, RECALIBRATION_BATCHES))
    network.eval()
    mixture = validation_losses(config.search, partial(supernet, probabilities=probabilities), streams, scorer)
    derived = validation_losses(config.search, network, streams, scorer)
    height, width = config.latency.height, config.latency.width
    provenance: dict[str, object] = {
        "timfuse": __version__,
        "seed": config.seed,
        "config_hash": config_hash(config),
        "data": {
            "root": str(config.data.root) if config.data.root else "synthetic scenes",
            "weight_pairs": len(splits.weight),
            "architecture_pairs": len(splits.architecture),
            "validation_pairs": len(splits.validation),
        },
        **({} if scorer is None else {"outer_loss": scorer.provenance}),
        "estimator": config.search.estimator,
        "step": config.search.steps,
        "parameters": count_parameters(network),
        "flops_640x480": count_flops(network, 480, 640),
        "latency": {
            "milliseconds": round(measure_network(network, height, width, device), 2),
            "height": height,
            "width": width,
            "device": device_name(device),
        },
        "metrics": {
            **{f"supernet_validation_{name}": value for name, value in mixture.items()},
            **{f"derived_validation_{name}": value for name, value in derived.items()},
        },
        "reason": {
            "rule": "the most probable operator of each edge at the last step, with its runner-up",
            **{f"cell {cell + 1}": texts for cell, texts in enumerate(reasons(probabilities, space.operators))},
        },
        "warnings": warnings,
    }
    genotype = replace(genotype, provenance=provenance)
    save_weights(run / "weights.safetensors", network.state_dict(), {"genotype": genotype.name})
    draw(genotype, run / "pictures", parameter_sizes(network))
    draw_probabilities(read_history(run / HISTORY_FILE), run / "pictures")
    if scorer is not None:
        keep_task_network(scorer.network, run)
    save_genotype(genotype, run / "genotype.yaml")
    return genotype
