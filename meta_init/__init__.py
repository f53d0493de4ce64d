"""The meta-initialisation stage: initial weights for every fusion task, and few-shot adaptation from them."""

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
