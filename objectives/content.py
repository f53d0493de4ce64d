"""The object-aware content loss: inside boxes a fused image is to be as bright as it can, outside it is to balance."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def object_content_loss(fused: Tensor, first: Tensor, second: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """Distance to the brighter source inside boxes, and to the mean of both outside, each by its own area.

    mean over inner pixels of |F − max(A, B)| + mean over outer pixels of |F − (A + B) / 2|, both over the whole batch.
    However small the boxes are, they count as much as all the rest.

    Source: Sun et al., "DetFusion: A Detection-driven Infrared and Visible Image Fusion Network", ACM MM 2022, whose
    code divides the inner term by the number of all pixels.

    Args:
        fused: (N, 1, H, W) in [0, 1].
        first: (N, 1, H, W) in [0, 1].
        second: (N, 1, H, W) in [0, 1].
        boxes: (K, 4) for each image, left, top, right and bottom in pixels, K from 0 on; what lies outside the image
            is left aside.

    Returns:
        Scalar, at least 0. A region without pixels contributes 0.
    """
    inside = covered_pixels(boxes, *fused.shape[-2:])
    target = torch.where(inside, torch.maximum(first, second), (first + second) / 2)
    distance = (fused - target).abs()
    regions = torch.stack((inside, ~inside))
    means = (distance * regions).sum((1, 2, 3, 4)) / regions.sum((1, 2, 3, 4)).clamp_min(1)
    return means.sum()


def covered_pixels(boxes: Sequence[Tensor], height: int, width: int) -> Tensor:
    """Find the pixels whose centres lie in a box, all boxes of all images at once.

    Args:
        boxes: (K, 4) for each of N images, left, top, right and bottom in pixels.
        height: Of the images, in pixels.
        width: Of the images, in pixels.

    Returns:
        (N, 1, height, width) of truth values. A centre on the left or upper edge of a box is inside.
    """
    padded = pad_sequence(list(boxes), batch_first=True)  # (N, K, 4); a box of zeros has no pixels
    left, top, right, bottom = padded[..., None].unbind(2)  # (N, K, 1)
    rows = torch.arange(height, device=padded.device) + 0.5
    columns = torch.arange(width, device=padded.device) + 0.5
    in_rows = ((top <= rows) & (rows < bottom)).float()  # (N, K, H)
    in_columns = ((left <= columns) & (columns < right)).float()  # (N, K, W)
    return (in_rows.transpose(1, 2) @ in_columns > 0)[:, None]
