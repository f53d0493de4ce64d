"""Fuses validation pairs by published methods that run here, for the tables: OpenFocus and the exposures of Mertens.

    pip install '.[benchmark]'
    python -m benchmarks.peers --data DATA PEERS     # from the root of the repository

DATA holds the data sets mef and mff. PEERS gets the pictures, as SET/METHOD/NAME.png, for `benchmarks.ruler --peers`.
OpenFocus fuses with its own defaults.
"""

import argparse
import subprocess
from pathlib import Path

import numpy as np

from timfuse.data import find_pairs, write_pixels
from timfuse.runtime.progress import Progress

OPENFOCUS = ("openfocus_a", "openfocus_b", "openfocus_c", "stackmffv3")


def open_focus(method: str, first: Path, second: Path, output: Path) -> None:
    """Fuse two files by a method of OpenFocus."""
    command = ["openfocus", "-i", str(first), str(second), "-o", str(output), "-m", method, "--cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not output.is_file():
        raise SystemExit(f"openfocus failed: {done.stderr[-500:]}")


def mertens(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Fuse two exposures (H, W, 3) uint8 by weights of contrast, saturation and exposedness (Mertens, 2009)."""
    import cv2  # of the extra alone

    fused: np.ndarray = cv2.createMergeMertens().process([first, second])
    return np.rint(255 * fused.clip(0, 1)).astype(np.uint8)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets mef and mff")
    parser.add_argument("peers", type=Path, help="folder that gets the pictures")
    given = parser.parse_args()
    focus = find_pairs(given.data / "mff", "multi-focus", "val")
    exposures = find_pairs(given.data / "mef", "multi-exposure", "val")
    with Progress(len(focus) + len(exposures), "fusing", unit="pairs") as progress:
        for pair in focus:
            for method in OPENFOCUS:
                output = given.peers / "mff" / method / f"{pair.name}.png"
                output.parent.mkdir(parents=True, exist_ok=True)
                open_focus(method, pair.first, pair.second, output)
            progress.advance()
        for pair in exposures:
            output = given.peers / "mef" / "Mertens" / f"{pair.name}.png"
            output.parent.mkdir(parents=True, exist_ok=True)
            write_pixels(output, mertens(*pair.read()))
            progress.advance()


if __name__ == "__main__":
    main()
