"""The meta-initialisation stage: one start for every fusion task, and few-shot adaptation from it."""

from .conclusion import MetaInitialisation
from .config import AdaptConfig, MetaInitConfig
from .few_shot import Adapted, adapt_to_task, shipped_initialisations
from .recipe import meta_initialise

__all__ = [
    "AdaptConfig",
    "Adapted",
    "MetaInitConfig",
    "MetaInitialisation",
    "adapt_to_task",
    "meta_initialise",
    "shipped_initialisations",
]
