"""What a genotype says of its origin: the keys that every stage writes, and those of single stages."""

from collections.abc import Mapping
from typing import TypedDict

# "mean" and each part (data set, task or class), each with its scores.
Scores = Mapping[str, Mapping[str, float | None]]


class Provenance(TypedDict, total=False):
    """The origin of a network and its weights; every key is optional, and files may hold others.

    Attributes:
        source: Where a published genotype comes from, in words.
        timfuse: Version of timfuse.
        stage: The stage that wrote the genotype.
        seed: Seed of the run.
        config_hash: Hash of the resolved config; see `runtime.config.config_hash`.
        data: Where the pairs come from, and how many are used for what.
        genotype: The network as the config names it.
        init: The weights at the start as the config names them.
        first_stage: The network whose output a refine network refines.
        steps: Number of steps of the run.
        best_step: The step after which the network had the weights that are kept, from 0.
        parameters: Number of parameters of the network.
        metrics: Scores by method or kind of weights, such as "best", "average" or "derived".
        architecture: The provenance that the architecture had before its weights were trained.
        algorithm: Algorithm of a meta-initialisation.
        initialisation: Provenance of the initialisation that was adapted.
        strategy: How a downstream task guides the fusion.
        downstream: The task network: kind, network, start and classes.
        images: The images of the task network under the strategy "frozen".
        estimator: Estimator of the hypergradient.
        fusion_loss_before: Fusion loss on the validation pairs at the start of a finetuning.
        promise_kept: Whether the fusion loss stayed within the tolerance of "lagrangian".
        operators: Files that register operators of the user's own, by operator.
        flops_640x480: Operations for a pair of 640x480.
        latency: Milliseconds for a pair, with its size and the device.
        budget: The budget of a search and what the network costs.
        reason: Why each operator was chosen.
        warnings: Warnings during a search.
        seeds: Comparison of several searches.
        tuning: The trial of a study that the network comes from.
    """

    source: str
    timfuse: str
    stage: str
    seed: int
    config_hash: str
    data: dict[str, object]
    genotype: str | None
    init: str | None
    first_stage: str | None
    steps: int
    best_step: int
    parameters: int
    metrics: Mapping[str, Scores]
    architecture: "Provenance"
    algorithm: str
    initialisation: "Provenance"
    strategy: str
    downstream: dict[str, object]
    images: str
    estimator: str
    fusion_loss_before: float
    promise_kept: bool
    operators: dict[str, object]
    flops_640x480: int
    latency: dict[str, object]
    budget: dict[str, object]
    reason: dict[str, object]
    warnings: list[str]
    seeds: dict[str, object]
    tuning: dict[str, object]
