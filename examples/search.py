"""Searches a network and prints its genotype: python search.py STEPS. Pairs are rendered."""

import sys
from pathlib import Path

from timfuse.search import SearchConfig, search

steps = int(sys.argv[1])
config = SearchConfig(
    run=Path("runs/search"),
    data={"synthetic_pairs": 8, "crop": 48, "batch_size": 1},  # or {"root": Path("DIR")}
    space={"preset": "tim", "channels": 8},
    search={"steps": steps, "warmup": steps // 4, "validate_every": steps},
    cost={"budget": "5kparams", "height": 120, "width": 160},  # or a time, such as "20ms"
    verify={"candidates": 0},  # trainings choose among what the search proposes, unless this is 0
)
result = search(config, overwrite=True)
print("feature maps:", result.genotype.channels)
for cell in result.genotype.cells:
    print(cell.kind, *cell.operators)
print("cost:", result.budget)
