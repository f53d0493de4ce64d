"""The meta-initialisation stage: initial weights for every fusion task, and few-shot adaptation from them.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> config = MetaInitConfig(tasks={"mri-ct": {}, "mri-pet": {}}, data={"root": Path("data")})
>>> result: MetaInitialisation = meta_initialise(config)  # doctest: +SKIP

One step of adaptation on a synthetic pair, for the sake of brevity:

>>> shipped_initialisations()
('all-tasks',)
>>> with TemporaryDirectory() as run:
...     config = AdaptConfig(run=Path(run), init="all-tasks", task="mri-ct", data={"pairs": 1}, steps=1)
...     adapted: Adapted = adapt_to_task(config)
>>> list(adapted.curve), adapted.pairs
([0, 1], 1)
"""

from .few_shot import Adapted, adapt_to_task, shipped_initialisations
from .meta_init_conclusion import MetaInitialisation
from .meta_init_config import AdaptConfig, MetaInitConfig
from .meta_init_recipe import meta_initialise

__all__ = [
    "AdaptConfig",
    "Adapted",
    "MetaInitConfig",
    "MetaInitialisation",
    "adapt_to_task",
    "meta_initialise",
    "shipped_initialisations",
]
