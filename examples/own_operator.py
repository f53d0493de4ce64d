"""Trains a network with an operator and a loss of one's own: python own_operator.py STEPS. Pairs are rendered."""

import sys
from pathlib import Path

from torch import nn

from timfuse.genotypes import CellGenotype, Genotype, save_genotype
from timfuse.operators import register_operator
from timfuse.training import TrainConfig, train

steps = int(sys.argv[1])


@register_operator("blur", kernels=(3, 5), radius=2)  # blur_k3 and blur_k5
def blur(channels: int, kernel: int) -> nn.Module:
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)


cells = (CellGenotype("successive", ("residual_k3_d1", "blur_k5")),) * 2
genotype = Genotype("own", "infrared-visible", "fusion", 8, cells, head="envelope")
save_genotype(genotype, Path("own.yaml"))
config = TrainConfig(
    run=Path("runs/own"),
    genotype="own.yaml",
    data={"synthetic_pairs": 8, "crop": 64, "batch_size": 2},  # or {"root": Path("DIR")}
    train={"steps": steps, "warmup": steps // 10, "validate_every": steps},
    loss={"base": "quality", "edges": 5, "smear": 2},  # a named loss with two other weights
)
training = train(config, overwrite=True)
for method, scores in training.scores.items():
    print(f"{method}: loss {scores['mean']['loss']:.3f}")
