"""How much a loss leaves to learn on a data set, and how much of it a network has learned.

    python -m benchmarks.headroom --task mri-ct --data DIR --network RUN   # from the root, with timfuse installed

The oracle is the picture itself, optimised pixel by pixel under the loss of the task, from the fusion by Laplacian
pyramids. On crops of validation pairs it shows what a network could reach that knew everything. The headroom is the
part of the way from the average to the oracle that the best method without a network leaves, and what a network
captured is (best trivial - network) / (best trivial - oracle), with an interval by bootstrap over the pairs.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import timfuse
from timfuse.data import Pair, find_pairs, luma, unit_range, write_pixels
from timfuse.data.images import Pixels
from timfuse.genotypes import TASKS, load_genotype
from timfuse.objectives import NAMED_LOSSES, FusionLoss, training_loss
from timfuse.objectives.metrics import BASKET, fusion_metrics
from timfuse.objectives.trivial_fusion import TRIVIAL
from timfuse.operators import build_network
from timfuse.operators.network_folders import find_network
from timfuse.runtime.progress import Progress

Fuse = Callable[[Tensor, Tensor], Tensor]

RATE = 0.02  # of Adam, in grey levels of 0..1; it falls along a half cosine
RESAMPLES = 2000


def central_crop(pair: tuple[Pixels, Pixels], side: int) -> Tensor:
    """Cut the centre out of the luma of both sources, (2, side, side) or smaller, in [0, 1]."""
    images = torch.stack([torch.from_numpy(unit_range(luma(pixels))) for pixels in pair])
    top, left = (max(length - side, 0) // 2 for length in images.shape[-2:])
    return images[:, top : top + side, left : left + side]


def optimised(loss: FusionLoss, first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Optimise a picture (1, 1, H, W) pixel by pixel."""
    picture = TRIVIAL["laplacian"](first, second).clamp(0, 1).requires_grad_()
    optimiser = torch.optim.Adam([picture], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(picture, first, second).backward()
        optimiser.step()
        schedule.step()
    return picture.detach().clamp(0, 1)


def untrained(name: str) -> Fuse:
    """Build the network of a run or shipped name with fresh weights."""
    torch.manual_seed(0)
    return build_network(load_genotype(find_network(name))).eval()


def interval(captured: Callable[[np.ndarray], float], count: int) -> tuple[float, float]:
    """Resample pairs, and return the 2.5th and the 97.5th percentile of a figure of them."""
    draw = np.random.default_rng(0)
    figures = [captured(draw.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = np.percentile(figures, (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--task", choices=TASKS, default="infrared-visible")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="data sets, each with a table of its own")
    parser.add_argument("--loss", choices=NAMED_LOSSES, help="default: the loss of the task")
    parser.add_argument("--network", nargs="*", default=[], help="shipped names or run folders")
    parser.add_argument("--pairs", type=int, default=12, help="largest number of validation pairs of a data set")
    parser.add_argument("--crop", type=int, default=160, help="height and width of the crops in pixels")
    parser.add_argument("--steps", type=int, default=300, help="steps of the oracle; 0 leaves it out")
    parser.add_argument("--pictures", type=Path, help="folder that gets the crops of every method side by side")
    given = parser.parse_args()
    loss = NAMED_LOSSES[given.loss] if given.loss else training_loss(given.task)
    methods: dict[str, Fuse] = dict(TRIVIAL)
    for name in given.network:
        methods[f"{Path(name).name} untrained"] = untrained(name)
        methods[Path(name).name] = timfuse.load(name, "cpu").network
    if given.steps:
        methods["oracle"] = lambda first, second: optimised(loss, first, second, given.steps)
    for data in given.data:
        pairs = find_pairs(data, given.task, "val")
        count = min(given.pairs, len(pairs))
        pairs = [pairs[index * len(pairs) // count] for index in range(count)]  # spread over the list
        table(data, pairs, methods, loss, given)


def table(data: Path, pairs: list[Pair], methods: dict[str, Fuse], loss: FusionLoss, given: argparse.Namespace) -> None:
    """Score every method on the crops of one data set, and print one line for each."""
    losses = {name: np.zeros(len(pairs)) for name in methods}
    metrics = {name: np.zeros((len(pairs), len(BASKET))) for name in methods}
    with Progress(len(pairs) * len(methods), str(data)) as progress:
        for index, pair in enumerate(pairs):
            first, second = central_crop(pair.read(), given.crop)[:, None, None]
            row = [first, second]
            for name, fuse in methods.items():
                with torch.set_grad_enabled(name == "oracle"):
                    fused = fuse(first, second)
                with torch.no_grad():
                    losses[name][index] = loss(fused, first, second)
                shown = [(255 * image.clamp(0, 1)).round().to(torch.uint8) for image in (fused, first, second)]
                metrics[name][index] = [scores.item() for scores in fusion_metrics(*shown, BASKET).values()]
                row.append(fused)
                progress.advance(name)
            if given.pictures:
                folder = given.pictures / data.name
                folder.mkdir(parents=True, exist_ok=True)
                row = [(255 * image.clamp(0, 1)).round().to(torch.uint8)[0, 0] for image in row]
                write_pixels(folder / f"{pair.name}.png", torch.cat(row, 1).numpy())
    best = min(TRIVIAL, key=lambda name: losses[name].mean())
    print(f"{data.name}: {len(pairs)} crops; best without a network: {best}")
    if given.steps:
        average, trivial, oracle = (losses[name].mean() for name in ("average", best, "oracle"))
        print(f"headroom {100 * (trivial - oracle) / (average - oracle):.0f} % of the way from average to oracle")
    print(f"{'method':<22}{'loss':>8}  {'captured':>22}  " + "".join(f"{name:>9}" for name in BASKET))
    for name, values in losses.items():
        words = ""
        if given.steps:

            def captured(rows: np.ndarray, values: np.ndarray = values) -> float:
                trivial = losses[best][rows].mean()
                return float((trivial - values[rows].mean()) / (trivial - losses["oracle"][rows].mean()))

            low, high = interval(captured, len(pairs))
            words = f"{100 * captured(np.arange(len(pairs))):.0f} % ({low * 100:.0f} to {high * 100:.0f})"
        means = np.nanmean(metrics[name], 0)
        print(f"{name:<22}{values.mean():8.3f}  {words:>22}  " + "".join(f"{value:9.4f}" for value in means))


if __name__ == "__main__":
    main()
