"""Builds operators from their ids, networks from genotypes and supernets from search spaces."""

import inspect
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..genotypes import Genotype, parse_operator
from ..runtime.memory import check_memory
from .cells import Blocks, Chain
from .detfusion import DetFusionNetwork
from .mixture import MixedOperator
from .networks import FusionNetwork, RefineNetwork
from .primitives import PRIMITIVES
from .pyramid import PyramidNetwork
from .registration import build_registered
from .width_supernet import COARSE_STEM, WidthSupernet

M = TypeVar("M", bound=nn.Module)

Network = FusionNetwork | DetFusionNetwork | RefineNetwork | PyramidNetwork
Supernet = FusionNetwork | RefineNetwork | PyramidNetwork | WidthSupernet

WIDE = 512
"""Channels up to which networks are small beside any memory."""


def _channels_last(module: M) -> M:
    """Lay out the weights as the kernels of CPU and GPU read them fastest."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_operator(name: str, channels: int, norm: str = "batch") -> nn.Module:
    """Build an operator.

    Args:
        name: Id of the operator, such as "residual_k3_d1".
        channels: Number of feature maps C, at least 1.
        norm: Normalisation, "batch", "group" or "none", for operators that have one.

    Raises:
        UserError: If the id is unknown.

    Example:
        >>> build_operator("dilated_k3_d2", 16)(torch.zeros(1, 16, 12, 20)).shape
        torch.Size([1, 16, 12, 20])
    """
    parsed = parse_operator(name)
    values: dict[str, int | str] = {
        "channels": channels,
        "kernel": parsed.kernel or 1,
        "dilation": parsed.dilation or 1,
        "norm": norm,
    }
    if parsed.kind not in PRIMITIVES:
        return _channels_last(build_registered(parsed.kind, values))
    build = PRIMITIVES[parsed.kind]
    return _channels_last(build(**{key: values[key] for key in inspect.signature(build).parameters if key in values}))


def build_network(genotype: Genotype) -> Network:
    """Build the network that a genotype describes, with fresh weights in channels-last layout.

    Returns:
        A `FusionNetwork`, `PyramidNetwork` or `DetFusionNetwork`, called as network(first, second), or a
        `RefineNetwork`, called as network(first, second, fused).

    Raises:
        UserError: If the weights do not fit into the memory.

    Example:
        >>> from timfuse.genotypes import load_genotype
        >>> type(build_network(load_genotype("tim"))).__name__
        'FusionNetwork'
    """

    def build(name: str, channels: int) -> nn.Module:
        return build_operator(name, channels, genotype.norm)

    def cells_of(source: str | None) -> list[tuple[str, Sequence[str]]]:
        return [(cell.kind, cell.operators) for cell in genotype.cells if cell.source == source]

    network: Network
    widest = max(genotype.widths)
    if widest > WIDE:
        check_memory(4 * 9 * widest**2, f"a network of {widest} channels", "lower channels")
    if isinstance(genotype.channels, tuple):
        levels = [(cell.level or 0, cell.kind, cell.operators) for cell in genotype.cells]
        network = PyramidNetwork(genotype.channels, levels, genotype.norm, genotype.head, build)
    elif genotype.network == "fusion":
        network = FusionNetwork(genotype.channels, cells_of(None), genotype.norm, genotype.stem, genotype.head, build)
    elif genotype.network == "detfusion":
        network = DetFusionNetwork(genotype.channels, genotype.head)
    else:
        merge = genotype.merge or "concat"
        network = RefineNetwork(genotype.channels, cells_of("first"), cells_of("second"), genotype.norm, merge, build)
    return _channels_last(network)


def build_supernet(
    *,
    channels: int | Sequence[int] | Sequence[Sequence[int]],
    cells: Sequence[str],
    steps: int,
    candidates: Sequence[str],
    norm: str = "batch",
    stem: str = "full",
    head: str = "direct",
    levels: Sequence[int] = (),
    sources: Sequence[str] = (),
    merge: str | None = None,
) -> Supernet:
    """Build a fusion network in which each operator is a mixture of all candidates.

    Args:
        channels: Number of feature maps; of a pyramid network that of each level, or the numbers to choose from; see
            `WidthSupernet`.
        cells: Kind of each cell, a key of `CELL_KINDS`.
        steps: Number of mixtures in each cell, at least 1.
        candidates: Ids of the operators that each mixture chooses from, at least 1.
        norm: Normalisation, "batch", "group" or "none".
        stem: Resolution of the finest features; "half" in a pyramid network.
        head: Output of the network; see `Genotype`.
        levels: Level of each cell of a pyramid network; empty for another network.
        sources: Branch of each cell of a refine network, all "first" before all "second"; empty for another network.
        merge: Merge of the branches of a refine network; see `Genotype`.

    Returns:
        A network called as supernet(first, second, probabilities) with probabilities (cells, steps, candidates), a
        `RefineNetwork` as supernet(first, second, fused, probabilities), and a `WidthSupernet` with those of the
        widths, (levels, options), besides.

    Raises:
        UserError: If an id is unknown.

    Example:
        >>> candidates = ["residual_k3_d1", "identity"]
        >>> supernet = build_supernet(channels=8, cells=["successive"], steps=2, candidates=candidates)
        >>> supernet(*torch.zeros(2, 1, 1, 32, 48), torch.full((1, 2, 2), 0.5)).shape
        torch.Size([1, 1, 32, 48])
    """

    def build(_: str, channels: int) -> nn.Module:
        return MixedOperator([build_operator(name, channels, norm) for name in candidates])

    mixtures = ["mixture"] * steps
    places = [(level, kind, mixtures) for level, kind in zip(levels, cells, strict=bool(levels))]
    if isinstance(channels, int):
        specifications = [(kind, mixtures) for kind in cells]
        if sources:
            before = sources.index("second")
            branches = specifications[:before], specifications[before:]
            return _channels_last(RefineNetwork(channels, *branches, norm, merge or "concat", build))
        return _channels_last(FusionNetwork(channels, specifications, norm, stem, head, build))
    fixed = [widths for widths in channels if isinstance(widths, int)]
    if fixed:
        return _channels_last(PyramidNetwork(fixed, places, norm, head, build))
    options = [widths for widths in channels if not isinstance(widths, int)]
    return _channels_last(WidthSupernet(options, places, head, build))


def inherited_weights(supernet: Supernet, operators: Sequence[Sequence[int]], network: nn.Module) -> dict[str, Tensor]:
    """Take from a supernet the weights of a network that has one candidate and one width where it has several.

    Args:
        supernet: A network that `build_supernet` built.
        operators: Index of the chosen candidate for each cell and step.
        network: The network of the genotype that describes these candidates and the chosen widths.

    Returns:
        A state dict that the network loads strictly. It shares memory with the supernet.

    Example:
        >>> candidates = ["residual_k3_d1", "identity"]
        >>> supernet = build_supernet(channels=8, cells=["successive"], steps=1, candidates=candidates)
        >>> network = FusionNetwork(8, [("successive", ["identity"])], "batch", "full", "direct", build_operator)
        >>> network.load_state_dict(inherited_weights(supernet, [[1]], network))
        <All keys matched successfully>
    """
    whole = supernet.network if isinstance(supernet, WidthSupernet) else supernet
    absent = 0  # finest levels that the network lacks and the supernet has
    if isinstance(network, PyramidNetwork) and isinstance(whole, PyramidNetwork):
        absent = network.featureless - whole.featureless
    levels = whole.levels if isinstance(whole, PyramidNetwork) else [0] * len(operators)
    cells = [cell for cell, level in enumerate(levels) if level >= absent]  # by their number in the network
    before = len(whole.first_cells) if isinstance(whole, RefineNetwork) else 0  # the second branch
    weights = whole.state_dict()

    def source(key: str) -> str:
        part, *rest = key.split(".")
        if part in ("cells", "first_cells", "second_cells"):
            cell = cells[int(rest[0])]
            chain = whole.get_submodule(f"{part}.{cell}.{rest[1]}")
            if isinstance(chain, Chain):
                chosen = operators[cell + before if part == "second_cells" else cell]
                steps = [step for step in range(len(chain)) if not _left_out(chain, step, chosen[step])]
                step = (steps or [0])[int(rest[2])]
                rest[2:3] = [str(step), "candidates", str(chosen[step])]
            return ".".join([part, str(cell), *rest[1:]])
        if absent and part == "stem":
            return ".".join([COARSE_STEM if rest[0] == "0" else "downs.0.activation", *rest[1:]])
        if part in ("downs", "ups", "heads"):
            return ".".join([part, str(int(rest[0]) + absent), *rest[1:]])
        return key

    return {
        # The feature maps of a smaller width are the first ones.
        key: weights[source(key)][tuple(map(slice, tensor.shape))]
        for key, tensor in network.state_dict().items()
    }


def _left_out(chain: Chain, step: int, candidate: int) -> bool:
    """Return whether a genotype leaves an operator out: an identity of a stage."""
    mixture = chain[step]
    assert isinstance(mixture, MixedOperator)
    return isinstance(chain, Blocks) and isinstance(mixture.candidates[candidate], nn.Identity)
