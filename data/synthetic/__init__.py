"""Synthetic pairs of every fusion task: street scenes, heads, exposures and focus, rendered without a download.

The labels of street scenes refer to these classes:

>>> from timfuse.data.synthetic import MASK_CLASSES, SCENE_CLASSES
>>> SCENE_CLASSES, MASK_CLASSES[0]
(('person', 'bicycle', 'car'), 'background')
"""

from .exposures import make_exposures
from .files import write_scenes
from .focus import make_focus, make_focus_with_truth
from .phantoms import make_phantom
from .scenes import MASK_CLASSES, SCENE_CLASSES, Scene, make_scene
from .tasks import SyntheticPairs

__all__ = [
    "MASK_CLASSES",
    "SCENE_CLASSES",
    "Scene",
    "SyntheticPairs",
    "make_exposures",
    "make_focus",
    "make_focus_with_truth",
    "make_phantom",
    "make_scene",
    "write_scenes",
]
