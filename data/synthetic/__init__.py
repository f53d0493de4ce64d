"""Synthetic pairs of every fusion task: street scenes, heads, exposures and focus, rendered without a download.

The labels of street scenes refer to these classes:

>>> from timfuse.data.synthetic import MASK_CLASSES, SCENE_CLASSES
>>> SCENE_CLASSES, MASK_CLASSES[0]
(('person', 'bicycle', 'car'), 'background')

Those of marked scenes, which neither source shows alone, refer to these:

>>> from timfuse.data.synthetic import MARKED_CLASSES
>>> MARKED_CLASSES
('disc', 'cross', 'stripes')
"""

from .exposures import make_exposure_stack, make_exposures
from .files import write_scenes
from .focus import make_focus, make_focus_stack, make_focus_with_truth
from .marked import MARKED_CLASSES, make_marked_scene
from .phantoms import make_phantom
from .scenes import MASK_CLASSES, SCENE_CLASSES, Scene, make_scene
from .tasks import SyntheticPairs

__all__ = [
    "MARKED_CLASSES",
    "MASK_CLASSES",
    "SCENE_CLASSES",
    "Scene",
    "SyntheticPairs",
    "make_exposure_stack",
    "make_exposures",
    "make_focus",
    "make_focus_stack",
    "make_focus_with_truth",
    "make_marked_scene",
    "make_phantom",
    "make_scene",
    "write_scenes",
]
