"""What a finetuning leaves behind: the best networks with how they were made, and at the end scores and pictures."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from .. import __version__
from ..downstream import keep_guiding_detectors, keep_task_network, load_task_weights
from ..genotypes import Genotype, save_genotype
from ..objectives import FusionLoss
from ..operators import count_parameters
from ..runtime.config import config_hash
from ..runtime.history import HISTORY_FILE, read_history
from ..runtime.weights import load_into, save_weights
from ..training.train_curves import draw_examples
from .finetune_config import FinetuneConfig
from .finetune_curves import draw_finetuning
from .finetune_pairs import TaskPairs
from .guided_networks import Networks
from .strategies import DetFusion, Strategy
from .task_validation import validate


class Finetuning(NamedTuple):
    """What a finetuning ends with.

    Attributes:
        genotype: With its provenance, as in `genotype.yaml`.
        best_step: The step after which the networks had their best weights.
        scores: Of the best weights, as in `Validation`.
        fusion_loss_before: On the validation pairs, of the network that it started from.
        promise_kept: Of "lagrangian": whether the fusion loss stayed within its tolerance there.
    """

    genotype: Genotype
    best_step: int
    scores: dict[str, float]
    fusion_loss_before: float
    promise_kept: bool


def keep_best(
    config: FinetuneConfig,
    genotype: Genotype,
    networks: Networks,
    strategy: Strategy,
    pairs: TaskPairs,
    summary: Mapping[str, Any],
    scores: Mapping[str, float],
) -> None:
    """Write the best weights so far and their genotype, so that the folder can be used while the finetuning goes on.

    Args:
        config: of the finetuning.
        genotype: of the fusion network.
        networks: with the best weights.
        strategy: what they were trained by.
        pairs: what they were trained and validated on.
        summary: step and fusion loss at the start.
        scores: of their validation.
    """
    keep_task_network(networks.task, config.run)
    if isinstance(strategy, DetFusion):
        keep_guiding_detectors(strategy.detectors, config.run)
    save_weights(config.run / "weights.safetensors", networks.network.state_dict(), {"genotype": genotype.name})
    save_genotype(_with_provenance(config, genotype, networks, pairs, summary, scores), config.run / "genotype.yaml")


def conclude(
    config: FinetuneConfig,
    genotype: Genotype,
    networks: Networks,
    strategy: Strategy,
    loss: FusionLoss,
    pairs: TaskPairs,
    summary: Mapping[str, Any],
) -> Finetuning:
    """Score the best weights and draw; the genotype comes last.

    Args:
        config: of the finetuning.
        genotype: of the fusion network.
        networks: get the best weights.
        strategy: what they were trained by.
        loss: the fusion loss.
        pairs: what they were trained and validated on.
        summary: step and fusion loss at the start.

    Returns:
        The genotype, the step and the scores.
    """
    load_into(networks.network, config.run / "weights.safetensors")
    load_task_weights(networks.task, config.run)
    validation = validate(
        lambda first, second: strategy.fuse(networks.network, first, second),
        networks.task.eval(),
        pairs,
        loss,
        next(networks.parameters()).device,
        examples=config.train.images,
    )
    pictures = config.run / "pictures"
    draw_examples(validation.examples, pictures)
    draw_finetuning(
        read_history(config.run / HISTORY_FILE),
        pictures,
        reference=summary["fusion_loss_before"],
        tolerance=config.guidance.tolerance,
    )
    genotype = _with_provenance(config, genotype, networks, pairs, summary, validation.scores)
    save_genotype(genotype, config.run / "genotype.yaml")
    return Finetuning(genotype, scores=validation.scores, **summary)


def _with_provenance(
    config: FinetuneConfig,
    genotype: Genotype,
    networks: Networks,
    pairs: TaskPairs,
    summary: Mapping[str, Any],
    scores: Mapping[str, float],
) -> Genotype:
    """Say how the weights were made, and keep what was said of the architecture."""
    origin = genotype.provenance.get("architecture", genotype.provenance)
    guidance = config.guidance
    provenance: dict[str, Any] = {
        "timfuse": __version__,
        "seed": config.seed,
        "config_hash": config_hash(config),
        "data": {
            "root": str(config.data.root) if config.data.root else "synthetic scenes",
            "training_pairs": len(pairs.training),
            "validation_pairs": len(pairs.validation),
        },
        "init": config.init,
        "task": {"kind": config.task.kind, "network": config.task.network, "classes": list(pairs.source.classes)},
        "strategy": guidance.strategy,
        **({"images": guidance.images} if guidance.strategy == "frozen" else {}),
        **({"estimator": guidance.estimator} if guidance.strategy == "learned_loss" else {}),
        "steps": config.train.steps,
        "best_step": summary["best_step"],
        "fusion_loss_before": summary["fusion_loss_before"],
        **({"promise_kept": summary["promise_kept"]} if guidance.strategy == "lagrangian" else {}),
        "parameters": count_parameters(networks.network),
        "metrics": {name: None if math.isnan(value) else value for name, value in scores.items()},
        "architecture": origin,
    }
    return replace(genotype, provenance=provenance)
