"""What a training leaves behind: the best weights with their genotype, and at the end scores and pictures."""

from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from .. import __version__
from ..drawing.example_sheet import draw_examples
from ..genotypes import Genotype, save_genotype
from ..objectives import FusionLoss
from ..operators import count_parameters
from ..runtime.config import config_hash
from ..runtime.history import HISTORY_FILE, read_history
from ..runtime.weights import load_into, save_weights
from .first_stage import fuse
from .train_config import TrainConfig
from .train_curves import draw_curves
from .train_pairs import TrainingPairs
from .train_validation import TRIVIAL, validate

Scores = dict[str, dict[str, float]]  # as in `Validation`


class Training(NamedTuple):
    """What a training ends with.

    Attributes:
        genotype: With its provenance, as in `genotype.yaml`.
        best_step: The step after which the network had its best weights.
        scores: Of the best weights, under "best", and of each method without a network.
    """

    genotype: Genotype
    best_step: int
    scores: dict[str, Scores]


def keep_best(
    config: TrainConfig, genotype: Genotype, network: nn.Module, pairs: TrainingPairs, step: int, scores: Scores
) -> None:
    """Write the best weights so far and their genotype, so that the folder can be used while the training goes on.

    Args:
        config: of the training.
        genotype: what is trained.
        network: with the best weights.
        pairs: what it was trained and validated on.
        step: the step after which it had these weights.
        scores: of its validation.
    """
    save_weights(config.run / "weights.safetensors", network.state_dict(), {"genotype": genotype.name})
    save_genotype(
        _with_provenance(config, genotype, network, pairs, step, {"best": scores}), config.run / "genotype.yaml"
    )


def conclude(
    config: TrainConfig,
    genotype: Genotype,
    network: nn.Module,
    first_stage: nn.Module | None,
    loss: FusionLoss,
    pairs: TrainingPairs,
    step: int,
) -> Training:
    """Score the best weights beside fusion without a network, and draw; the genotype comes last.

    Args:
        config: of the training.
        genotype: what was trained.
        network: gets the best weights.
        first_stage: what a refine network refines the output of.
        loss: what was trained on.
        pairs: what it was trained and validated on.
        step: the step after which it had its best weights.

    Returns:
        The genotype, the step and the scores.
    """
    load_into(network, config.run / "weights.safetensors")
    device = next(network.parameters()).device
    best = validate(
        lambda first, second: fuse(network, first_stage, first, second)[0],
        pairs.validation,
        loss,
        device,
        examples=config.train.images,
    )
    trivial = {name: validate(method, pairs.validation, loss, device).scores for name, method in TRIVIAL.items()}
    scores = {"best": best.scores, **trivial}
    genotype = _with_provenance(config, genotype, network, pairs, step, scores)
    pictures = config.run / "pictures"
    draw_examples(best.examples, pictures)
    draw_curves(read_history(config.run / HISTORY_FILE), pictures, scores)
    save_genotype(genotype, config.run / "genotype.yaml")
    return Training(genotype, step, scores)


def _with_provenance(
    config: TrainConfig,
    genotype: Genotype,
    network: nn.Module,
    pairs: TrainingPairs,
    step: int,
    metrics: dict[str, Scores],
) -> Genotype:
    """Say how the weights were made, and keep what was said of the architecture."""
    origin = genotype.provenance.get("architecture", genotype.provenance)
    provenance: dict[str, Any] = {
        "timfuse": __version__,
        "seed": config.seed,
        "config_hash": config_hash(config),
        "data": {
            "root": [str(root) for root in config.data.roots if root] or "synthetic scenes",
            "training_pairs": pairs.training_count,
            "validation_pairs": sum(len(validation.indices) for validation in pairs.validation),
        },
        "genotype": config.genotype,
        "first_stage": config.first_stage and str(config.first_stage),
        "init": config.init and str(config.init),
        "steps": config.train.steps,
        "best_step": step,
        "parameters": count_parameters(network),
        "metrics": metrics,
        "architecture": origin,
    }
    return replace(genotype, provenance=provenance)
