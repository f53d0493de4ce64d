"""The search stage: from image pairs to a genotype.

One step on synthetic pairs, for the sake of brevity, in a space of two networks:

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> data = {"synthetic_pairs": 4, "crop": 16, "batch_size": 1}
>>> space = {"channels": 2, "cells": ("successive",), "steps": 1, "operators": ("residual_k3_d1", "dense_k3_d1")}
>>> cost = {"height": 16, "width": 16}
>>> with TemporaryDirectory() as run:
...     config = SearchConfig(run=Path(run), data=data, space=space, search={"steps": 1, "warmup": 0}, cost=cost)
...     result: SearchResult = search(config)
>>> result.best_seed, result.genotype.channels
(0, 2)
>>> print_seeds(result)  # doctest: +ELLIPSIS
seed       cell 1 (successive)...
"""

from .search_config import SearchConfig
from .search_recipe import search
from .several_seeds import SearchResult, print_seeds

__all__ = [
    "SearchConfig",
    "SearchResult",
    "print_seeds",
    "search",
]
