"""How long fusing a pair takes, part by part, and what tiles cost on large images.

Run: python -m benchmarks.fuse [NAME_OR_FOLDER ...] (from the root of the repository, with timfuse installed). Without
names: the networks that come with timfuse, or small ones with random weights where there are none.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from timfuse.data import coloured_pixels, luma_of
from timfuse.deploy import Fuser, load_network, shipped_names
from timfuse.deploy.trained_network import TrainedNetwork
from timfuse.genotypes import CellGenotype, Genotype
from timfuse.operators import build_network, count_parameters, fold_batch_norm
from timfuse.runtime.memory import keep_freed_memory

ROUNDS = 15
HEIGHT, WIDTH = 480, 640
LARGE = 2500, 4000  # ten megapixels
CELLS = (CellGenotype("successive", ("residual_k3_d1", "dilated_k3_d2")),)


def networks(names: list[str]) -> list[TrainedNetwork]:
    """Load what was named, or make what the table is about."""
    if names or shipped_names():
        return [load_network(name) for name in names or shipped_names()]
    torch.manual_seed(0)
    genotypes = [
        Genotype(f"random, {stem} stem", "infrared-visible", "fusion", 16, CELLS, stem=stem)
        for stem in ("full", "half")
    ]
    return [TrainedNetwork(genotype, build_network(genotype)) for genotype in genotypes]


def in_turn(actions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Time the actions in turn, so that a drift of the machine's speed reaches all of them; medians in milliseconds."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for round_ in range(ROUNDS + 2):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if round_ >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


@torch.inference_mode()
def parts(network: TrainedNetwork) -> dict[str, float]:
    """Time a pair of a grey and a colour image, 8 bits."""
    generator = np.random.default_rng(0)
    grey = generator.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    colour = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    fuser = Fuser(network, torch.device("cpu"))
    first, second = (luma_of(pixels)[None, None] for pixels in (grey, colour))
    fused = network(first, second)[0, 0].clamp(0, 1)
    actions: dict[str, Callable[[], object]] = {
        "whole call, grey": lambda: fuser(grey, grey),
        "whole call, colour": lambda: fuser(grey, colour),
        "luma of both": lambda: (luma_of(grey), luma_of(colour)),
        "network": lambda: network(first, second),
        "colour, 8 bits": lambda: coloured_pixels(fused, grey, colour, "second", np.uint8),
    }
    if network.first_stage is None:
        trained = build_network(network.genotype).eval()
        folded = fold_batch_norm(trained)
        actions["network as trained"] = lambda: trained(first, second)
        actions["network with folded norms"] = lambda: folded(first, second)
    return in_turn(actions)


def large(network: TrainedNetwork) -> tuple[float, float]:
    """Seconds for ten megapixels, and the largest difference of tiles from the whole on a crop, in steps of 8 bits."""
    generator = np.random.default_rng(0)
    grey = generator.integers(0, 256, LARGE, dtype=np.uint8)
    fuser = Fuser(network, torch.device("cpu"))
    start = time.perf_counter()
    fuser(grey, grey)
    seconds = time.perf_counter() - start
    first, second = torch.rand(2, 1, 1, 900, 1100)
    whole, tiled = (Fuser(network, torch.device("cpu"), size, 1)(first, second) for size in (2**40, 2**24))
    return seconds, 255 * (whole - tiled).abs().max().item()


def main() -> None:
    keep_freed_memory()
    console = Console()
    measured = {network.genotype.name: network for network in networks(sys.argv[1:])}
    table = Table("what", *measured, title=f"{WIDTH}x{HEIGHT} pair, {torch.get_num_threads()} threads, median ms")
    times = [parts(network) for network in measured.values()]
    for name in dict.fromkeys(name for column in times for name in column):
        table.add_row(name, *(f"{column[name]:.1f}" if name in column else "" for column in times))
    counts = [count_parameters(build_network(network.genotype)) for network in measured.values()]
    table.add_row("parameters", *(f"{count:,}" for count in counts))
    console.print(table)
    table = Table("what", *measured, title=f"{LARGE[1]}x{LARGE[0]} pair in tiles")
    results = [large(network) for network in measured.values()]
    table.add_row("seconds", *(f"{seconds:.2f}" for seconds, _ in results))
    table.add_row("difference from one pass, in 1/255", *(f"{seam:.1e}" for _, seam in results))
    table.add_row("reach, pixels", *(str(network.reach) for network in measured.values()))
    console.print(table)
    console.print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    main()
