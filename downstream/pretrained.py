"""Task networks of transformers by what a run folder says of them."""

from collections.abc import Mapping
from typing import Any

from ..runtime.errors import UserError
from .transformers_detection import TransformersDetector
from .transformers_segmentation import TransformersSegmenter

_KINDS: dict[str, type[TransformersDetector] | type[TransformersSegmenter]] = {
    kind.kind: kind for kind in (TransformersDetector, TransformersSegmenter)
}


def from_specification(specification: Mapping[str, Any]) -> TransformersDetector | TransformersSegmenter:
    """Make a task network anew, with fresh weights and without any file or connection.

    Args:
        specification: As a task network of transformers returns it.

    Raises:
        UserError: If it is of another kind, incomplete or not valid, or a package is missing.
    """
    kind = str(specification.get("kind"))
    if kind not in _KINDS:
        raise UserError(f"no task network of the kind {kind}; get the description of the network again")
    try:
        return _KINDS[kind].from_specification(specification)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"the description of the task network is incomplete ({error}); get it again") from None
