"""The origin of a genotype: the keys that every stage writes, and those of single stages."""

from collections.abc import Mapping
from typing import TypedDict

# "mean" and each part (data set, task or class), each with its scores.
Scores = Mapping[str, Mapping[str, float | None]]


class Provenance(TypedDict, total=False):
    """The origin of a network and its weights. Every key is optional, and files may have others.

    Example:
        >>> origin: Provenance = {"stage": "train", "seed": 0, "steps": 2000, "best_step": 1899}
    """

    source: str  # origin of a published genotype, in words
    timfuse: str  # version
    stage: str  # the stage that wrote the genotype
    seed: int
    config_hash: str  # of the resolved config; see `runtime.config.config_hash`
    data: dict[str, object]  # folders of the pairs, and how many pairs are used for what
    genotype: str | None  # the network as the config names it
    init: str | None  # the weights at the start, as the config names them
    first_stage: str | None  # the network whose output a refine network refines
    steps: int  # of the run
    best_step: int  # the step with the best weights, from 0
    kept_after: int  # the number of steps of an adaptation whose weights are kept
    parameters: int
    metrics: Mapping[str, Scores]  # scores by method or kind of weights, like "best" or "derived"
    architecture: "Provenance"  # provenance of the architecture before its weights were trained
    algorithm: str  # of a meta-initialisation
    initialisation: "Provenance"  # provenance of the initialisation that was adapted
    strategy: str  # how a downstream task guides the fusion
    downstream: dict[str, object]  # the task network: kind, network, start and classes
    images: str  # of the task network, with the strategy "frozen"
    estimator: str  # of the hypergradient
    fusion_loss_before: float  # on the validation pairs at the start of a finetuning
    fusion_losses_without_network: Mapping[str, float]  # on these pairs, by method
    promise_kept: bool  # whether the fusion loss kept what "lagrangian" promises
    operators: dict[str, object]  # files that register operators of the user, by operator
    flops_640x480: int
    latency: dict[str, object]  # milliseconds for a pair, with its size and the device
    budget: dict[str, object]  # of a search, and what the network costs
    reason: dict[str, object]  # for the choice of each operator
    warnings: list[str]  # during a search
    seeds: dict[str, object]  # comparison of several searches
    hub: str  # name of the network on the hub, with the commit that was loaded
    tuning: dict[str, object]  # the trial of a study that the network comes from
