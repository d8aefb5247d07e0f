"""Losses against slow definitions; the published numbers are in test_golden.py."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mstrack import boxes as np_boxes
from mstrack.errors import UserError
from mstrack.losses import focal_loss, giou, heatmap, target_cell, tracking_losses
from mstrack.models.blocks import Prediction

N = 8


def draw_boxes(count: int, seed: int = 0, low: float = 0.05, high: float = 0.9) -> Tensor:
    """Boxes x, y, w, h whose centres lie in the crop."""
    rng = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=rng)
    sides = low + (high - low) * torch.rand(count, 2, generator=rng)
    return torch.cat([centre - sides / 2, sides], 1)


def draw_prediction(count: int, seed: int = 1, device: str = "cpu") -> Prediction:
    rng = torch.Generator().manual_seed(seed)
    score = torch.rand(count, 1, N, N, generator=rng).clamp(1e-4, 1 - 1e-4)
    size = torch.rand(count, 2, N, N, generator=rng).clamp(1e-4, 1 - 1e-4)
    maps = (score, size, torch.rand(count, 2, N, N, generator=rng))
    return Prediction(*(m.to(device).requires_grad_() for m in maps))


def slow_radius(w: float, h: float) -> int:
    """The roots of the three quadratics for an overlap of 0.7, divided by 2."""
    smallest = math.inf
    for a, b, c in (
        (1, w + h, w * h * 0.3 / 1.7),
        (4, 2 * (w + h), 0.3 * w * h),
        (2.8, -1.4 * (w + h), -0.3 * w * h),
    ):
        smallest = min(smallest, (b + math.sqrt(b * b - 4 * a * c)) / 2)
    return int(max(0, smallest))


def slow_heatmap(box: list[float]) -> np.ndarray:
    x, y, w, h = (v * N for v in box)
    column, row, radius = round(x + w / 2), round(y + h / 2), slow_radius(w, h)
    sigma = (2 * radius + 1) / 6
    drawn = np.zeros((N, N))
    for i in range(N):
        for j in range(N):
            if max(abs(i - row), abs(j - column)) <= radius:
                drawn[i, j] = math.exp(-((i - row) ** 2 + (j - column) ** 2) / (2 * sigma**2))
    return drawn


def test_heatmap_is_drawn_cell_by_cell() -> None:
    given = torch.cat([draw_boxes(200, low=0.01), draw_boxes(50, high=2.0), torch.tensor([[0.8, 0.7, 0.4, 0.4]])])
    expected = np.stack([slow_heatmap(box) for box in given.tolist()])
    radii = {slow_radius(*(N * v for v in box[2:])) for box in given.tolist()}
    assert radii >= {0, 1, 2}
    np.testing.assert_allclose(heatmap(given, N)[:, 0], expected, atol=1e-6)
    assert heatmap(given, N)[-1].max() < 1, "a centre at 1 is on cell n and leaves no peak"


def test_target_cell_is_the_peak_of_the_heatmap() -> None:
    given = draw_boxes(100)
    drawn = heatmap(given, N).flatten(1)
    inside = drawn.amax(1) == 1
    assert 50 < inside.sum() < 100
    assert torch.equal(target_cell(given, N)[inside], drawn.argmax(1)[inside])
    assert target_cell(torch.tensor([[0.9, -0.5, 0.4, 0.2], [math.nan] * 4]), N).tolist() == [N - 1, 0]


def slow_focal(score: Tensor, target: Tensor) -> float:
    total, positives = 0.0, 0
    for p, t in zip(score.flatten().tolist(), target.flatten().tolist(), strict=True):
        positives += t == 1
        total -= math.log(p) * (1 - p) ** 2 if t == 1 else math.log(1 - p) * p**2 * (1 - t) ** 4
    return total / max(positives, 1)


def test_focal_loss_is_the_sum_over_cells() -> None:
    score, target = draw_prediction(3).score.detach(), heatmap(draw_boxes(3, seed=4), N)
    assert (target == 1).sum() == 3
    for drawn in (target, 0.999 * target):
        assert focal_loss(score, drawn).item() == pytest.approx(slow_focal(score, drawn), rel=1e-5)


def test_giou_is_iou_less_the_empty_share_of_the_hull() -> None:
    a, b = draw_boxes(100, seed=5).double(), draw_boxes(100, seed=6).double()
    found, iou = giou(*(torch.from_numpy(np_boxes.corners(x)) for x in (a, b)))
    np.testing.assert_allclose(iou, np_boxes.iou(a, b), atol=1e-12)
    p, q = np_boxes.corners(a), np_boxes.corners(b)
    hull = np.prod(np.maximum(p[:, 2:], q[:, 2:]) - np.minimum(p[:, :2], q[:, :2]), axis=1)
    inter = np_boxes.iou(a, b) * (np.prod(p[:, 2:] - p[:, :2], 1) + np.prod(q[:, 2:] - q[:, :2], 1)) / (1 + np_boxes.iou(a, b))
    union = np.prod(p[:, 2:] - p[:, :2], 1) + np.prod(q[:, 2:] - q[:, :2], 1) - inter
    np.testing.assert_allclose(found, np_boxes.iou(a, b) - (hull - union) / hull, atol=1e-12)


def test_invalid_boxes_do_not_raise() -> None:
    inverted, point, good = [0.6, 0.6, 0.2, 0.3], [0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.7, 0.8]
    broken = [math.nan, 0.0, 1.0, 1.0]
    a, b = torch.tensor([inverted, point, good, broken]), torch.tensor([good, point, good, good])
    found, iou = giou(a, b)
    assert iou[:3].tolist() == [0, 0, 1]
    assert found[1:3].tolist() == [0, 1]
    assert -1 <= found[0] <= 0
    assert found[3].isnan()


@pytest.mark.parametrize("box_at", ["peak", "target"])
def test_losses_of_the_batch_are_those_of_its_items(box_at: str) -> None:
    prediction, truth = draw_prediction(5), draw_boxes(5, seed=7, low=0.2, high=0.6)
    truth[:, :2] = truth[:, :2].clamp(0.0, 0.35)
    together = tracking_losses(prediction, truth, box_at=box_at)
    alone = [
        tracking_losses(Prediction(*(m[i : i + 1] for m in prediction)), truth[i : i + 1], box_at=box_at) for i in range(5)
    ]
    for name in together:
        assert together[name].item() == pytest.approx(sum(t[name].item() for t in alone) / 5, rel=1e-5)
    assert together["total"].item() == pytest.approx(
        sum(weight * together[name].item() for name, weight in (("focal", 1), ("giou", 2), ("l1", 5)))
    )
    assert not together["iou"].requires_grad


def test_the_box_is_learnt_where_it_is_read() -> None:
    truth = draw_boxes(4, seed=8, low=0.2, high=0.5)
    truth[:, :2] = truth[:, :2].clamp(0.05, 0.45)
    for box_at, cells in (("peak", draw_prediction(4).score.flatten(1).argmax(1)), ("target", target_cell(truth, N))):
        prediction = draw_prediction(4)
        tracking_losses(prediction, truth, weights=(0, 2, 5), box_at=box_at)["total"].backward()
        assert prediction.size.grad is not None
        touched = prediction.size.grad.abs().sum(1).flatten(1)
        assert (touched.argmax(1) == cells).all()
        assert ((touched > 0).sum(1) == 1).all()


def test_a_perfect_prediction_costs_nothing_but_the_tail() -> None:
    truth = torch.tensor([[0.25, 0.375, 0.25, 0.25]])
    cell = target_cell(truth, N)
    score = heatmap(truth, N).clamp(1e-4, 1 - 1e-4)
    size, offset = torch.full((1, 2, N, N), 0.25), torch.zeros(1, 2, N, N)
    assert (cell.item() // N, cell.item() % N) == (4, 3)
    found = tracking_losses(Prediction(score, size, offset), truth)
    assert found["iou"].item() == pytest.approx(1)
    assert found["giou"].item() == pytest.approx(0, abs=1e-6)
    assert found["l1"].item() == pytest.approx(0, abs=1e-7)


def test_what_is_not_finite_reaches_the_total() -> None:
    truth = draw_boxes(3)
    truth[1] = math.nan
    for box_at in ("peak", "target"):
        assert not tracking_losses(draw_prediction(3), truth, box_at=box_at)["total"].isfinite()
        broken = draw_prediction(3)
        with torch.no_grad():
            for part in broken:
                part[0] = math.nan
        assert not tracking_losses(broken, draw_boxes(3), box_at=box_at)["total"].isfinite()


@pytest.mark.parametrize("box_at", ["peak", "target"])
def test_nothing_waits_for_the_device(box_at: str) -> None:
    """Tensors without storage refuse everything that would need a number on the host."""
    prediction = draw_prediction(3, device="meta")
    losses = tracking_losses(prediction, draw_boxes(3).to("meta"), box_at=box_at)
    losses["total"].backward()
    with pytest.raises(RuntimeError, match="meta"):
        losses["total"].item()


def test_half_precision_maps_are_scored_in_full() -> None:
    exact, truth = draw_prediction(3), draw_boxes(3)
    rounded = Prediction(*(m.detach().bfloat16() for m in exact))
    again = Prediction(*(m.float() for m in rounded))
    for name, value in tracking_losses(rounded, truth).items():
        assert value.dtype == torch.float32
        assert value.isfinite()
        if name == "focal":
            assert value.item() == pytest.approx(tracking_losses(again, truth)[name].item(), rel=1e-6)


def test_unknown_cell_is_named() -> None:
    with pytest.raises(UserError, match="Did you mean 'peak'"):
        tracking_losses(draw_prediction(1), draw_boxes(1), box_at="peek")
