"""Fuses two images of 8 bits by a network that `timfuse export` wrote, with numpy, pillow and onnxruntime alone.

Run: python fuse_onnx.py ivif.onnx infrared.png visible.png fused.png
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image


def fuse(session: onnxruntime.InferenceSession, first: Image.Image, second: Image.Image) -> Image.Image:
    """Fuse two images of one size; the fused image has the colour of the second one."""
    colours = [np.asarray(image.convert("RGB"), np.float32) / 255 for image in (first, second)]  # (H, W, 3)
    lumas = [colour @ np.array([0.299, 0.587, 0.114], np.float32) for colour in colours]  # (H, W), ITU-R BT.601
    inputs = {name: luma[None, None] for name, luma in zip(("first", "second"), lumas, strict=True)}
    fused = session.run(["fused"], inputs)[0][0, 0]  # (H, W) in [0, 1]
    pixels = colours[1] + (fused - lumas[1])[..., None]  # the same change of red, green and blue keeps the colour
    image = Image.fromarray((255 * pixels.clip(0, 1)).round().astype(np.uint8))
    return image.convert("L") if second.mode == "L" else image


if __name__ == "__main__":
    model, first, second, output = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    fuse(session, Image.open(first), Image.open(second)).save(output)
