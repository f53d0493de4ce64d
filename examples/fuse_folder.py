"""Fuses a folder of pairs: python fuse_folder.py DATA OUTPUT. Renders three pairs where there is no folder DATA."""

import sys
from pathlib import Path

import timfuse
from timfuse.data import find_pairs, write_pixels, write_scenes

data, output = Path(sys.argv[1]), Path(sys.argv[2])
if not data.exists():
    write_scenes(data, 3, height=240, width=320, seed=0)

fuse = timfuse.load("ivif")
for pair in find_pairs(data, "infrared-visible"):
    infrared, visible = pair.read()  # (H, W) or (H, W, 3), uint8 or uint16
    fused = fuse(infrared, visible)  # keeps the colour of the visible image
    write_pixels(output / f"{pair.name}.png", fused)
    print(f"{pair.name}: {fused.shape[1]}x{fused.shape[0]}, mean {fused.mean():.1f}")
