"""The kinds of files that are mutated, the commands that read them, and the folder with one good file of each."""

import json
import shutil
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

from timfuse.data import Alignment, save_alignment, write_scenes
from timfuse.genotypes import CellGenotype, Genotype
from timfuse.operators import build_network, save_network_folder
from timfuse.operators.released import released_name

from .guarded import after_checkpoint, run
from .mutations import PNG, png_chunk

CONFIGS = {
    "train": """
device: cpu
run: out/run
genotype: net
init: net
data: {root: labelled, crop: 32, batch_size: 1, validation: 0.5}
train: {steps: 2, warmup: 0, ema: 0.9, clip: 1.0, validate_every: 2, checkpoint_every: 1, images: 0}
loss: {intensity: 1.0, gradient: 1.0}
""",
    "search": """
device: cpu
run: out/run
data: {root: labelled, crop: 32, batch_size: 1, validation: 0.5}
space: {preset: tim, channels: 2, cells: [successive], steps: 1, operators: [residual_k3_d1, spatial_attention_k3]}
search:
  {steps: 3, warmup: 1, validate_every: 3, checkpoint_every: 1, inner_loss: search-inner, outer_loss: search-outer}
cost: {height: 16, width: 16}
verify: {candidates: 0}
""",
    "meta-init": """
device: cpu
run: out/run
genotype: net
data: {synthetic_pairs: 6, crop: 20, support: 1, query: 1, validation: 0.3}
tasks:
  mri-ct: {weight: 0.5, loss: {intensity: 1.0}}
  multi-focus: {loss: {intensity: 1.0}}
inner: {steps: 1, learning_rate: 5.0e-3}
meta: {pretrain: 2, steps: 2, warmup: 1, validate_every: 2, checkpoint_every: 1}
""",
    "finetune": """
device: cpu
run: out/run
init: net
data: {root: labelled, crop: 32, batch_size: 2, validation: 0.5}
downstream: {kind: detection, width: 8}
guidance: {strategy: joint, detector_steps: 1}
train: {steps: 2, warmup: 0, validate_every: 2, checkpoint_every: 1, images: 0}
loss: {intensity: 1.0, gradient: 1.0}
""",
    "segment": """
device: cpu
run: out/run
init: net
data: {root: labelled, crop: 32, batch_size: 2, validation: 0.5}
downstream: {kind: segmentation, network: segformer-tiny}
guidance: {strategy: joint, detector_steps: 1}
train: {steps: 1, warmup: 0, validate_every: 1, checkpoint_every: 1, images: 0}
loss: {intensity: 1.0, gradient: 1.0}
""",
    "adapt": """
device: cpu
run: out/run
init: out/meta-init-done
task: mri-ct
data: {pairs: 1}
steps: 1
""",
    "tune": """
device: cpu
run: out/run
cost: parameters
quality: [VIF]
data: {root: labelled, validation: 0.5}
search:
  data: {crop: 32, batch_size: 1}
  space: {preset: tim, channels: 2, cells: [successive], steps: 1, operators: [residual_k3_d1, spatial_attention_k3]}
  search:
    {steps: 2, warmup: 1, validate_every: 2, checkpoint_every: 1, inner_loss: search-inner, outer_loss: search-outer}
  cost: {height: 16, width: 16}
  verify: {candidates: 0}
train:
  data: {crop: 44, batch_size: 1, validation_pairs: 1}
  train: {steps: 1, warmup: 0, images: 0, checkpoint_every: 1}
vary:
  search: {space: {channels: [2, 4], stem: [full, half]}}
  train: {loss: {gradient: {low: 1, high: 5.0}}}
""",
}
STAGES = ("train", "search", "meta-init", "finetune")


@dataclass(frozen=True)
class Kind:
    """Files that are mutated, one at a time, and commands that read them.

    Attributes:
        files: Patterns of the files.
        commands: Command lines; {file}, {name}, {folder} and {root} stand for the path of the mutated file, its stem,
            its folder and its outermost folder.
        needs: Files and folders besides that the commands read.
        share: Number of inputs of this kind among so many of all kinds.
    """

    files: Sequence[str]
    commands: Sequence[str]
    needs: Sequence[str] = ("net",)
    share: int = 1


_ONE_PAIR = "--first images/ir/{name}.* --second images/vis/{name}.*"
_TRAIN = "train -c train.yaml --set data.root={} --set train.steps=1"
KINDS = {
    "images": Kind(
        ("images/ir/*", "images/vis/*", "images/fused/*"),
        (
            "fuse --first images/ir --second images/vis -o out/fused -n net --device cpu",
            *[f"fuse {_ONE_PAIR} -o out/fused -n net --device cpu"] * 4,
            *[f"evaluate {_ONE_PAIR} --fused images/fused -o out/scores --metrics EN,MI"] * 2,
            _TRAIN.format("images"),
        ),
        ("net", "train.yaml"),
        share=4,
    ),
    "masks": Kind(("labelled/label/*",), ("finetune -c segment.yaml",), ("net", "segment.yaml")),
    "boxes": Kind(
        ("labelled/boxes/*", "voc/annotations/*", "coco/annotations/*"),
        ("finetune -c finetune.yaml --set train.steps=1 --set data.root={root}",),
        ("net", "finetune.yaml"),
        share=2,
    ),
    "lists": Kind(
        ("labelled/*.txt",),
        (
            *("fuse --data labelled --split val -o out/fused -n net --device cpu", _TRAIN.format("labelled")),
            "fuse --data labelled --split train -o out/fused -n net --device cpu",
            *("finetune -c finetune.yaml --set train.steps=1", "finetune -c segment.yaml"),
        ),
        ("net", "train.yaml", "finetune.yaml", "segment.yaml"),
    ),
    "configs": Kind(
        ("*.yaml",),
        ("config {stage} -c {file}", "{stage} -c {file} --set run=out/run {trials}"),
        ("net", "labelled", "out/meta-init-done"),
        share=4,
    ),
    "genotypes": Kind(
        ("net/genotype.yaml",),
        (
            *["fuse --data labelled -o out/fused -n net --device cpu"] * 3,
            *("import released.pt -g net/genotype.yaml -o out/imported", _TRAIN.format("labelled")),
            "visualize net -o out/pictures",
        ),
        ("labelled", "released.pt", "train.yaml"),
        share=3,
    ),
    "alignments": Kind(
        ("transform.yaml",),
        ("fuse --data labelled -o out/fused -n net --device cpu --align {file}",),
        ("net", "labelled"),
    ),
    "weights": Kind(
        ("net/weights.safetensors", "net/task/weights.safetensors", "net/task/specification.yaml"),
        (
            "fuse --data labelled -o out/fused -n net --device cpu --labels out/labels",
            *(_TRAIN.format("labelled"), "finetune -c finetune.yaml --set train.steps=1 --set downstream.init=net"),
        ),
        ("labelled", "train.yaml", "finetune.yaml"),
        share=2,
    ),
    "released": Kind(("released.pt",), ("import released.pt -g net -o out/imported",), share=2),
    "checkpoints": Kind(
        tuple(f"out/{stage}/checkpoint.pt" for stage in STAGES),
        ("{folder} -c {folder}.yaml --set run=out/{folder} --resume",),
        ("net", "labelled", "{folder}.yaml"),
    ),
    "runs": Kind(
        tuple(f"out/{stage}/{name}" for stage in STAGES for name in ("history.jsonl", "config.yaml", ".written")),
        (
            *["{folder} -c {folder}.yaml --set run=out/{folder} --resume"] * 4,
            *("{folder} -c {folder}.yaml --set run=out/{folder} --overwrite", "visualize out/{folder} -o out/pictures"),
        ),
        ("net", "labelled", "{folder}.yaml"),
    ),
    "initialisations": Kind(
        ("out/meta-init-done/*.yaml", "out/meta-init-done/*.safetensors"),
        ("adapt -c adapt.yaml",),
        ("adapt.yaml",),
    ),
}


def fill(text: str, path: Path) -> str:
    """Put the path of a mutated file into a command line or the name of a file."""
    stage = {"segment": "finetune"}.get(path.stem, path.stem)
    trials = "--trials 1" if stage == "tune" else ""
    root, folder = path.parts[0], path.parent.name
    return text.format(file=path, name=path.stem, root=root, folder=folder, stage=stage, trials=trials)


def write_good(folder: Path) -> None:
    """Write a good file of each kind into an empty folder, and whatever the commands need besides."""
    for name, text in CONFIGS.items():
        (folder / f"{name}.yaml").write_text(text.lstrip(), encoding="utf-8")
    torch.manual_seed(0)
    genotype = Genotype("small", "infrared-visible", "fusion", 2, (CellGenotype("successive", ("residual_k3_d1",)),))
    network = build_network(genotype)
    save_network_folder(folder / "net", genotype, network)
    published = {released_name(network, key): value for key, value in network.state_dict().items()}
    torch.save({"state_dict": published}, folder / "released.pt")
    _write_images(folder / "images")
    write_scenes(folder / "labelled", 4, height=44, width=48, seed=0)
    rows = ((0.99, -0.02, 1.5), (0.02, 0.99, 0.5), (1e-4, 0.0, 1.0))
    save_alignment(Alignment("homography", (48, 44), (48, 44), rows, 0.7), folder / "transform.yaml")
    names = sorted(path.stem for path in (folder / "labelled/ir").iterdir())
    for file, chosen in (("train.txt", names[:2]), ("val.txt", names[2:]), ("labelled.txt", names)):
        (folder / "labelled" / file).write_text("".join(f"{name}\n" for name in chosen), encoding="utf-8")
    _write_label_forms(folder)
    for stage in STAGES:
        _finish(folder, f"{stage} -c {stage}.yaml --set run=out/{stage}-done")
        run(f"{stage} -c {stage}.yaml --set run=out/{stage}".split(), folder, stop_at=after_checkpoint())
        assert (folder / "out" / stage / "checkpoint.pt").is_file()
    shutil.copytree(folder / "out/finetune-done/task", folder / "net/task")


def _finish(folder: Path, command: str) -> None:
    done = run(command.split(), folder)
    assert (done.code, done.errors, done.harm) == (0, [], []), (command, done)


def _write_label_forms(folder: Path) -> None:
    """Write the pairs of `labelled` with their boxes in the forms of Pascal VOC and COCO."""
    images, annotations = [], []
    for form in ("voc", "coco"):
        for name in ("ir", "vis"):
            shutil.copytree(folder / "labelled" / name, folder / form / name)
        (folder / form / "annotations").mkdir()
    for number, file in enumerate(sorted((folder / "labelled/boxes").iterdir())):
        images.append({"id": number, "file_name": f"{file.stem}.png", "height": 44, "width": 48})
        objects = ""
        for kind, x, y, width, height in (map(float, line.split()) for line in file.read_text().splitlines()):
            left, top, right, bottom = (
                48 * (x - width / 2),
                44 * (y - height / 2),
                48 * (x + width / 2),
                44 * (y + height / 2),
            )
            box = [left, top, right - left, bottom - top]
            annotations.append({"image_id": number, "category_id": int(kind), "bbox": box, "iscrowd": 0})
            corners = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
            objects += f"<object>\n<name>class {int(kind)}</name>\n<bndbox>{corners}</bndbox>\n</object>\n"
        size = "<size><width>48</width><height>44</height><depth>1</depth></size>"
        text = f"<annotation>\n{size}\n{objects}</annotation>\n"
        (folder / "voc/annotations" / f"{file.stem}.xml").write_text(text, encoding="utf-8")
    categories = [{"id": number, "name": f"class {number}"} for number in range(3)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "coco/annotations/train.json").write_text(json.dumps(content), encoding="utf-8")


def _write_images(folder: Path) -> None:
    """Write a pair with its fused image in each format that is read."""
    noise = np.random.default_rng(0)
    for name in ("ir", "vis", "fused"):
        (folder / name).mkdir(parents=True)
        grey, colour = (noise.integers(0, 256, shape, dtype=np.uint8) for shape in ((44, 48), (44, 48, 3)))
        deep, deep_colour = (noise.integers(0, 65536, image.shape, dtype=np.uint16) for image in (grey, colour))
        for stem, image in (("grey", grey), ("colour", colour), ("alpha", np.dstack([colour, grey]))):
            Image.fromarray(image).save(folder / name / f"{stem}-png.png")
        for stem, image in (("grey", grey), ("colour", colour)):
            Image.fromarray(image).save(folder / name / f"{stem}-bmp.bmp")
            Image.fromarray(image).save(
                folder / name / f"{stem}-jpg.jpg",
                exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
            )
            Image.fromarray(image).save(folder / name / f"{stem}-lzw.tif", compression="tiff_lzw")
            Image.fromarray(image).save(folder / name / f"{stem}-webp.webp", lossless=True)
        Image.fromarray(grey).save(folder / name / "grey-pgm.pgm")
        Image.fromarray(colour).save(folder / name / "colour-ppm.ppm")
        Image.fromarray(deep).save(folder / name / "deep-png.png")
        Image.fromarray(colour).quantize(16).save(folder / name / "palette-png.png")
        (folder / name / "deep-colour-png.png").write_bytes(_deep_png(deep_colour))
        tifffile.imwrite(folder / name / "deep-tif.tif", deep, metadata=None)
        tifffile.imwrite(folder / name / "deep-colour-tif.tif", deep_colour, photometric="rgb", metadata=None)


def _deep_png(pixels: np.ndarray) -> bytes:
    """Encode colour of 16 bits as PNG, which pillow cannot."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return PNG + b"".join(
        png_chunk(*part) for part in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )
