"""How exactly pairs of the data sets are aligned again after a random warp, what is refused, and when a warning comes.

    python -m benchmarks.alignment --data DATA   # from the root of the repository; DATA holds roadscene, tno and msrs

The second image of a validation pair is warped by a shift of up to 20 pixels in each direction, a turn of up to 5
degrees, a scale of 0.9 to 1.1 and a perspective that moves corners by up to 2 % of half the width, and cut to what it
shows of the scene. The error is the mean distance, over the four corners of the second image, of where the estimate
and the truth put them in the first one, in its pixels. There are two truths, since the pairs of these data sets are
not aligned to the pixel. `given`: the warp alone, as if the pair had been aligned. `recovered`: the warp after the
transform that the same method finds for the same part of the pairs as they are. The row `as they are` has by how much
this transform moves the corners: a method that is right about the pairs has about so much against the given truth.

One transform is estimated from a single pair, and from eight (of tno all five), which are brought to one size and
warped alike. Pairs of two different scenes must be refused. The warning is judged on groups of four pairs, as they are,
with the second images shifted by 5 to 20 pixels, and warped. `--split train` does the same on training pairs, on which
the least confidence was chosen, and writes nothing. Values go to benchmarks/results/alignment.csv, the shares to
alignment.md.
"""

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timfuse.data import find_alignment, find_pairs, luma
from timfuse.data.misalignment import LOOKED_AT, misalignment
from timfuse.runtime.csv_text import csv_text
from timfuse.runtime.errors import UserError
from timfuse.runtime.files import write_atomically
from timfuse.runtime.progress import Progress

RESULTS = Path(__file__).parent / "results"
SETS = ("roadscene", "tno", "msrs")
RIG, GROUPS = 8, 10  # pairs of a rig; rigs and groups of each data set
SHIFT, TURN, SCALE, PERSPECTIVE = 20.0, 5.0, 0.1, 0.01
HEADING = ("set", "pairs", "trial", "case", "accepted", "confidence", "given", "recovered")
CASES = ("as they are", "warped", "two scenes")

Matrix = NDArray[np.float64]
Grey = NDArray[np.uint8]
Images = tuple[Grey, Grey]


def random_warp(rng: np.random.Generator, width: int, height: int) -> Matrix:
    """Draw a matrix from the pixels of a warped image to those of the image."""
    half = width / 2
    units = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, half]]) / half
    x, y = rng.uniform(-SHIFT, SHIFT, 2) / half
    turn, scale = np.deg2rad(rng.uniform(-TURN, TURN)), rng.uniform(1 - SCALE, 1 + SCALE)
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    moved = np.array([[cosine, -sine, x], [sine, cosine, y], [0, 0, 1]])
    moved[2, :2] = rng.uniform(-PERSPECTIVE, PERSPECTIVE, 2)
    return np.linalg.inv(units) @ moved @ units


def warped(image: Grey, warp: Matrix) -> tuple[Grey, Matrix]:
    """Warp an image, and cut the part around the centre that has no pixel from outside; return its matrix, too."""
    height, width = image.shape
    for share in np.arange(1, 0, -0.01):
        across, down = int(share * width), int(share * height)
        left, top = (width - across) // 2, (height - down) // 2
        cut = warp @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
        x, y = mapped(cut, across, down)
        if min(x.min(), y.min()) >= 0 and x.max() <= width - 1 and y.max() <= height - 1:
            break
    centred = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # pillow counts from the corner of a pixel
    matrix = centred @ cut @ np.linalg.inv(centred)
    numbers = (matrix / matrix[2, 2]).ravel()[:8].tolist()
    result = Image.fromarray(image).transform(
        (across, down), Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BICUBIC
    )
    return np.asarray(result), cut


def mapped(matrix: Matrix, width: int, height: int) -> Matrix:
    """Map the corners of an image, (2, 4)."""
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]])
    points = matrix @ corners.T
    return points[:2] / points[2]


def distance(one: Matrix, other: Matrix, image: Grey) -> float:
    """Compute the mean distance of the corners of an image under two matrices."""
    height, width = image.shape
    return float(np.linalg.norm(mapped(one, width, height) - mapped(other, width, height), axis=0).mean())


def read(data: Path, name: str, split: str) -> list[Images]:
    """Read the luma of all pairs of a part of a data set."""
    pairs = (pair.read() for pair in find_pairs(data / name, split=split))
    return [(luma(first).astype(np.uint8), luma(second).astype(np.uint8)) for first, second in pairs]


def of_one_size(pairs: Sequence[Images]) -> list[Images]:
    """Reduce pairs to the width of the narrowest, and cut them to the height of the lowest."""
    width = min(first.shape[1] for first, _ in pairs)
    heights = [round(first.shape[0] * width / first.shape[1]) for first, _ in pairs]
    least = min(heights)
    return [
        (resized(first, width, height, least), resized(second, width, height, least))
        for (first, second), height in zip(pairs, heights, strict=True)
    ]


def resized(image: Grey, width: int, height: int, cut: int) -> Grey:
    """Resample an image, and cut its middle rows."""
    top = (height - cut) // 2
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))[top : top + cut]


def estimated(pairs: Sequence[Images]) -> tuple[float, Matrix] | None:
    """Estimate the matrix from second to first images, with its confidence; None if it is refused."""
    try:
        found = find_alignment(pairs)
    except UserError:
        return None
    return found.confidence, np.linalg.inv(np.array(found.matrix))


def trials(pairs: Sequence[Images], rng: np.random.Generator) -> Iterator[tuple[list[Images], list[Images]]]:
    """Yield the pairs of each trial, and pairs of two scenes: each pair by itself, then rigs of eight."""
    for index, (first, second) in enumerate(pairs):
        other = pairs[(index + 1 + int(rng.integers(len(pairs) - 1))) % len(pairs)][1]
        size = second.shape[1], second.shape[0]
        yield [(first, second)], [(first, np.asarray(Image.fromarray(other).resize(size)))]
    for _ in range(GROUPS):
        chosen = of_one_size([pairs[index] for index in rng.permutation(len(pairs))[:RIG]])
        seconds = [second for _, second in chosen]
        yield chosen, [(first, seconds[index - 1]) for index, (first, _) in enumerate(chosen)]


def align_again(name: str, pairs: Sequence[Images], rng: np.random.Generator) -> Iterator[list[object]]:
    """Yield the rows of a data set."""
    for trial, (right, wrong) in enumerate(trials(pairs, rng)):
        height, width = right[0][0].shape
        warp = random_warp(rng, width, height)
        image, moved = warped(right[0][1], warp)
        x, y = mapped(moved, image.shape[1], image.shape[0])
        left, top, end, bottom = (round(edge) for edge in (x.min(), y.min(), x.max(), y.max()))
        cut = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])  # the part of the scene that the warped image shows
        as_they_are = [(first, second[top : bottom + 1, left : end + 1]) for first, second in right]
        found = estimated(as_they_are)
        before = None if found is None else found[1] @ np.linalg.inv(cut)
        yield [*(name, len(right), trial, CASES[0]), *values(found, [cut], as_they_are[0][1])]
        found = estimated([(first, warped(second, warp)[0]) for first, second in right])
        truths = [moved] if before is None else [moved, before @ moved]
        yield [*(name, len(right), trial, CASES[1]), *values(found, truths, image)]
        found = estimated([(first, warped(second, warp)[0]) for first, second in wrong])
        yield [*(name, len(right), trial, CASES[2]), *values(found, [], image)]


def values(found: tuple[float, Matrix] | None, truths: Sequence[Matrix], image: Grey) -> list[object]:
    """List whether an estimate was accepted, its confidence, and its distances from truths."""
    if found is None:
        return [0, "", "", ""]
    errors = [f"{distance(found[1], truth, image):.2f}" for truth in truths]
    return [1, found[0], *errors, *[""] * (2 - len(errors))]


def warnings(name: str, pairs: Sequence[Images], rng: np.random.Generator) -> Iterator[list[object]]:
    """Yield whether the warning comes for groups of pairs."""

    def shifted(second: Grey, x: int, y: int) -> Grey:
        return np.roll(second, (y, x), (0, 1))

    for trial in range(GROUPS):
        group = of_one_size([pairs[index] for index in rng.permutation(len(pairs))[:LOOKED_AT]])
        height, width = group[0][0].shape
        x, y = (int(part) for part in rng.integers(5, 21, 2) * rng.choice([-1, 1], 2))
        warp = random_warp(rng, width, height)
        ways: dict[str, Callable[[Grey], Grey]] = {
            "warning, as they are": lambda second: second,
            "warning, shifted": lambda second, x=x, y=y: shifted(second, x, y),
            "warning, warped": lambda second, warp=warp: warped(second, warp)[0],
        }
        for case, change in ways.items():
            sentence = misalignment([(first, change(second)) for first, second in group])
            yield [name, len(group), trial, case, int(bool(sentence)), "", "", ""]


def report(rows: Sequence[dict[str, str]]) -> str:
    """Write the shares as Markdown."""

    def share(values: Sequence[float], limit: float) -> str:
        return f"{100 * np.mean(np.array(values) <= limit):.0f} %" if values else "-"

    lines = [
        "Estimates that were accepted, and among these the mean error of the corners, in pixels:",
        "",
        "| pairs | | accepted | given: median | ≤ 1.5 | ≤ 3 | worst | recovered: median | ≤ 1.5 | ≤ 3 | worst |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for single in (True, False):
        for case in CASES:
            for name in SETS:
                chosen = [
                    row
                    for row in rows
                    if row["set"] == name and row["case"] == case and (row["pairs"] == "1") == single
                ]
                if not chosen:
                    continue
                accepted = sum(int(row["accepted"]) for row in chosen)
                cells = [f"{chosen[0]['pairs']} of {name}", case, f"{accepted} of {len(chosen)}"]
                for truth in ("given", "recovered"):
                    values = [float(row[truth]) for row in chosen if row[truth]]
                    numbers = [f"{fold(values):.1f}" if values else "-" for fold in (np.median, max)]
                    cells += [numbers[0], share(values, 1.5), share(values, 3), numbers[1]]
                lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Groups of four pairs for which the warning comes:", "", "| | as they are | shifted | warped |"]
    lines.append("|---|---|---|---|")
    for name in SETS:
        counts = []
        for case in ("as they are", "shifted", "warped"):
            chosen = [row for row in rows if row["set"] == name and row["case"] == f"warning, {case}"]
            counts.append(f"{sum(int(row['accepted']) for row in chosen)} of {len(chosen)}")
        lines.append(f"| {name} | {' | '.join(counts)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--split", default="val", help="val or train")
    parser.add_argument("--limit", type=int, default=100, help="pairs of each data set, evenly spread")
    given = parser.parse_args()
    rows: list[list[object]] = []
    for name in SETS:
        pairs = read(given.data, name, given.split)
        pairs = pairs[:: -(-len(pairs) // given.limit)]
        rng = np.random.default_rng(0)
        with Progress(len(CASES) * (len(pairs) + GROUPS), name) as progress:
            for row in align_again(name, pairs, rng):
                rows.append(row)
                progress.advance()
        rows += warnings(name, pairs, rng)
    table = csv_text(HEADING, rows)
    text = report(list(csv.DictReader(table.splitlines())))
    if given.split == "val":
        write_atomically(RESULTS / "alignment.csv", table)
        write_atomically(RESULTS / "alignment.md", text)
    print(text)


if __name__ == "__main__":
    main()
