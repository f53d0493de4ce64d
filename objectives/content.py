"""The object-aware content loss of DetFusion: bright inside the boxes of objects, balanced outside."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def object_content_loss(fused: Tensor, first: Tensor, second: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """Measure the distance to the brighter source inside boxes and to the mean of both outside.

        L = mean over inner pixels of |F - max(A, B)| + mean over outer pixels of |F - (A + B) / 2|

    Both means are over the whole batch, so small boxes count as much as all the rest.

    Args:
        fused: Fused images F, (N, 1, H, W), in [0, 1], like the sources A and B.
        boxes: Boxes of each image, N tensors (K, 4) of left, top, right and bottom in pixels, K >= 0. Parts outside the
            image do not count.

    Returns:
        Scalar, at least 0. A region without pixels contributes 0.

    References:
        Sun et al., "DetFusion: A Detection-driven Infrared and Visible Image Fusion Network" (ACM MM 2022). The
        authors' code divides the inner term by the number of all pixels instead.

    Example:
        >>> dark, bright = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
        >>> object_content_loss(bright, dark, bright, [torch.tensor([[0.0, 0.0, 4.0, 4.0]])])  # 0 inside, 1/2 outside
        tensor(0.5000)
    """
    inside = covered_pixels(boxes, *fused.shape[-2:])
    target = torch.where(inside, torch.maximum(first, second), (first + second) / 2)
    distance = (fused - target).abs()
    regions = torch.stack((inside, ~inside))
    means = (distance * regions).sum((1, 2, 3, 4)) / regions.sum((1, 2, 3, 4)).clamp_min(1)
    return means.sum()


def covered_pixels(boxes: Sequence[Tensor], height: int, width: int) -> Tensor:
    """Find the pixels whose centres lie in a box, for all boxes of all images at once.

    Args:
        boxes: Boxes of each image, N tensors (K, 4) of left, top, right and bottom in pixels.

    Returns:
        Booleans, (N, 1, height, width). A centre on the left or upper edge of a box is inside.
    """
    padded = pad_sequence(list(boxes), batch_first=True)  # (N, K, 4); a box of zeros has no pixels
    left, top, right, bottom = padded[..., None].unbind(2)  # (N, K, 1)
    rows = torch.arange(height, device=padded.device) + 0.5
    columns = torch.arange(width, device=padded.device) + 0.5
    in_rows = ((top <= rows) & (rows < bottom)).float()  # (N, K, H)
    in_columns = ((left <= columns) & (columns < right)).float()  # (N, K, W)
    return (in_rows.transpose(1, 2) @ in_columns > 0)[:, None]
