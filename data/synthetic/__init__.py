"""Synthetic street scenes seen by an infrared and a visible camera."""

from .files import write_scenes
from .objects import ObjectClass
from .scenes import Scene, SyntheticScenes, make_scene

__all__ = ["ObjectClass", "Scene", "SyntheticScenes", "make_scene", "write_scenes"]
