"""The losses of a centre-head tracker on a `Prediction`: focal on the score map, GIoU and L1 on one box per item.

The conventions are OSTrack's, whose weights are 1, 2 and 5. All is tensor arithmetic over the batch: nothing waits for the
device, and nothing raises on numbers that are not finite (the training loop looks for them in the total).
"""

import torch
from torch import Tensor

from mstrack.errors import UserError
from mstrack.models.blocks import Prediction
from mstrack.registry import unknown

WEIGHTS = (1.0, 2.0, 5.0)
BOX_AT = ("peak", "target")
MIN_OVERLAP = 0.7


def tracking_losses(
    prediction: Prediction, boxes: Tensor, *, weights: tuple[float, float, float] = WEIGHTS, box_at: str = "peak"
) -> dict[str, Tensor]:
    """Loss terms of a batch.

    Args:
        prediction: What the model said of B search crops.
        boxes: (B, 4) true x, y, w, h in units of the crop's side; they may leave [0, 1] and are cut there for the box terms.
        weights: Of focal, GIoU and L1 in the total.
        box_at: Where the predicted box is read: `peak`, the cell with the highest predicted score (published), or `target`,
            the cell of the true centre, which teaches size and offset before the score map is any good.

    Returns:
        Scalars: `total`; the unweighted terms `focal`, `giou` (1 - GIoU, mean) and `l1` (on corners, mean); and `iou`
        (mean, without gradient).

    Raises:
        UserError: Unknown `box_at`.
    """
    if box_at not in BOX_AT:
        raise UserError(unknown("box_at", box_at, BOX_AT))
    score, truth = prediction.score.float(), boxes.float()
    n = score.shape[-1]
    found = prediction.boxes if box_at == "peak" else prediction.boxes_at(target_cell(truth, n))
    predicted = _corners(found[:, :2].float() - 0.5 * found[:, 2:].float(), found[:, 2:].float())
    expected = _corners(truth[:, :2], truth[:, 2:]).clamp(0, 1)
    overlap, iou = giou(predicted, expected)
    terms = {
        "focal": focal_loss(score, heatmap(truth, n)),
        "giou": (1 - overlap).mean(),
        "l1": (predicted - expected).abs().mean(),
    }
    total = torch.stack([weight * term for weight, term in zip(weights, terms.values(), strict=True)]).sum()
    return {"total": total, **terms, "iou": iou.detach().mean()}


def heatmap(boxes: Tensor, n: int) -> Tensor:
    """Target score maps: a Gaussian about each box's centre cell, cut off at its radius.

    The centre cell is rounded, halves to even; one that lies outside the map (a centre at 1 is on cell n) leaves only the
    tail that reaches in. The radius is CornerNet's for an overlap of 0.7 in its widely copied form, where each root is
    divided by 2; sigma is (2 radius + 1) / 6.

    Args:
        boxes: (B, 4) x, y, w, h in units of the crop's side.
        n: Cells along each side of the map.

    Returns:
        (B, 1, n, n), 1 at the centre cell.
    """
    centre = _centre(boxes, n)
    radius = _radius(boxes[:, 2:] * n)[:, None]
    axis = torch.arange(n, device=boxes.device, dtype=boxes.dtype)
    dx, dy = axis - centre[:, :1], axis - centre[:, 1:]
    sigma = ((2 * radius + 1) / 6)[:, None]
    bell = torch.exp(-(dx.square()[:, None, :] + dy.square()[:, :, None]) / (2 * sigma.square()))
    inside = (dx.abs() <= radius)[:, None, :] & (dy.abs() <= radius)[:, :, None]
    return torch.where(inside, bell, 0.0)[:, None]


def target_cell(boxes: Tensor, n: int) -> Tensor:
    """Flat index (B,) of the cell of an n x n map that holds each true centre, or of the nearest one."""
    column, row = _centre(boxes, n).nan_to_num().clamp(0, n - 1).long().unbind(-1)
    return row * n + column


def focal_loss(score: Tensor, target: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """CornerNet's focal loss of a score map against Gaussian targets, over the number of cells whose target is 1.

    Args:
        score: (B, 1, n, n) probabilities.
        target: The same shape, from `heatmap`.
        alpha: Down-weights cells that are right already.
        beta: Down-weights cells near a centre.
    """
    positive = target == 1
    hit = score.clamp(min=1e-12).log() * (1 - score).pow(alpha)
    miss = (1 - score).clamp(min=1e-12).log() * score.pow(alpha) * (1 - target).pow(beta)
    return -torch.where(positive, hit, miss).sum() / positive.sum().clamp(min=1)


def giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Generalised IoU (Rezatofighi et al., CVPR 2019) and IoU of boxes as corners, item by item.

    Args:
        a: (..., 4) left, top, right, bottom. Corners in the wrong order make an empty box.
        b: The same.

    Returns:
        GIoU in [-1, 1] and IoU in [0, 1], both (...).
    """
    intersection = _area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - intersection
    hull = _area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    iou = intersection / union.clamp(min=1e-12)
    return iou - (hull - union) / hull.clamp(min=1e-12), iou


def _area(low: Tensor, high: Tensor) -> Tensor:
    """Area between two corners (..., 2), 0 where they are in the wrong order."""
    sides = (high - low).clamp(min=0)
    return sides[..., 0] * sides[..., 1]  # the derivative of `prod` counts zeros, and waits for the device to tell


def _corners(low: Tensor, sides: Tensor) -> Tensor:
    return torch.cat([low, low + sides], dim=-1)


def _centre(boxes: Tensor, n: int) -> Tensor:
    """(B, 2) column and row of the true centre, whole numbers."""
    scaled = boxes * n
    return (scaled[:, :2] + scaled[:, 2:] / 2).round()


def _radius(sides: Tensor) -> Tensor:
    """CornerNet's radius (B,) for boxes of `sides` (B, 2) cells, as `heatmap` says; whole numbers, at least 0."""
    total, area, o = sides.sum(-1), sides.prod(-1), MIN_OVERLAP
    quadratics = (
        (1.0, total, area * (1 - o) / (1 + o)),
        (4.0, 2 * total, area * (1 - o)),
        (4 * o, -2 * o * total, area * (o - 1)),
    )
    roots = [(b + (b.square() - 4 * a * c).sqrt()) / 2 for a, b, c in quadratics]
    return torch.stack(roots).amin(0).clamp(min=0).floor()
