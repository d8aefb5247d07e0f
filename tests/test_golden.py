"""Every number of the published implementations that lies in a folder of goldens, by the name of its file.

`MST_GOLDEN=DIR pytest tests/test_golden.py` runs the .npz files of another folder (formats as in its README); the default is
../shared/golden. A name that nobody knows fails. What a folder lacks (recipe.py, key lists) is taken from the default.
"""

import gzip
import importlib.util
import json
import os
import re
import zlib
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

from mstrack import create_model
from mstrack.boxes import clip
from mstrack.data.crops import crop, crop_mask, jitter, to_crop
from mstrack.data.sequence import Frame
from mstrack.losses import focal_loss, giou, heatmap, tracking_losses
from mstrack.models.blocks import Prediction, normalise
from mstrack.models.network import Network
from mstrack.models.positions import interpolate_positions
from mstrack.registry import MODELS
from mstrack.tracker import Tracker, hann

DEFAULT = Path(__file__).parents[2] / "shared" / "golden"
FOLDER = Path(os.environ.get("MST_GOLDEN", DEFAULT))

NETWORKS = {
    "ostrack256": "ostrack-b256",
    "ostrack384": "ostrack-b384",
    "dualstream256": "mst-b256",
    "dualstream384": "mst-b384",
    "vipt_deep256": "vipt-b256",
    "vipt_deep384": "vipt-b384",
    "vipt_shaw256": "vipt-shallow-b256",
    "sdstrack256": "sdstrack-b256",
}
"""First part of a golden's name -> our model."""
NETWORK = rf"(?P<base>{'|'.join(NETWORKS)})(?P<variants>(_(ce|dropmae|own|init))*)"

Arrays = dict[str, np.ndarray]


# ---------------------------------------------------------------- what the goldens were made from
def find(name: str) -> Path:
    """A file that accompanies the goldens."""
    return next((f / name for f in (FOLDER, DEFAULT) if (f / name).is_file()), FOLDER / name)


@cache
def recipe() -> ModuleType:
    """The folder's recipe.py: weights and images from arithmetic."""
    spec = importlib.util.spec_from_file_location("golden_recipe", find("recipe.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shapes(base: str) -> dict[str, tuple[int, ...]]:
    """State-dict key -> shape."""
    with gzip.open(find(f"{base}_keys.txt.gz"), "rt") as lines:
        rows = [line.split("\t") for line in lines]
    return {key: () if shape == "scalar" else tuple(map(int, shape.split("x"))) for key, shape, _ in rows}


def initial_shapes(base: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the one-stream checkpoint that a dual stream starts from."""
    source = base.replace("dualstream", "ostrack")
    if find(f"{source}_keys.txt.gz").is_file():
        return shapes(source)
    added = ("_event.", "blocks_cross.")
    return {key.replace("_rgb.", "."): shape for key, shape in shapes(base).items() if not any(a in key for a in added)}


@cache
def weight(key: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.asarray(recipe().tensor(key, shape)))


@lru_cache(maxsize=1)
@torch.inference_mode(False)
def network(base: str, variants: frozenset[str], elimination: bool | None) -> Network:
    """Our model with the recipe's weights, or a skip where the catalogue has no such model yet."""
    if NETWORKS[base] not in MODELS:
        pytest.skip(f"no model {NETWORKS[base]} in the catalogue yet")
    kwargs = {"droptrack": True} if "dropmae" in variants else {}
    if elimination is not None:
        kwargs["elimination"] = elimination
    with torch.device("meta"):
        model = create_model(NETWORKS[base], **kwargs)
    full = base + ("_dropmae" if "dropmae" in variants else "")
    names = initial_shapes(full) if "init" in variants else shapes(full)
    published = {key: weight(key, shape) for key, shape in names.items()}
    missing, surplus = model.load_state_dict(model.remap(published), strict=False, assign=True)
    assert not surplus
    assert all(name.endswith("num_batches_tracked") for name in missing)
    model.load_state_dict({name: torch.tensor(0) for name in missing}, strict=False, assign=True)
    return model.eval()


def network_of(match: re.Match[str], golden: Arrays) -> Network:
    """The network that made a golden: with candidate elimination where its name or its arrays say so.

    A forward pass that dropped nothing was made without; of a track that says nothing the model's default is expected.
    """
    variants = frozenset(match["variants"].split("_")[1:])
    base, elimination = match["base"], "ce" in variants or "removed_0" in golden
    silent = not elimination and (base.startswith("dualstream") or ("score_map" not in golden and "ostrack" not in base))
    return network(base, variants, None if silent else elimination)


def assert_checksum(tokens: Tensor, golden: Arrays, prefix: str) -> None:
    """Shape and moments of a (B, N, width) array, its first and its last numbers."""
    x = tokens.double().numpy()
    assert_array_equal(x.shape, golden[f"{prefix}_shape"])
    moments = {
        "mean": x.mean(),
        "std": x.std(),
        "absmean": np.abs(x).mean(),
        "mean_per_item": x.mean((1, 2)),
        "std_per_item": x.std((1, 2)),
    }
    for name, value in moments.items():
        assert_allclose(value, golden[f"{prefix}_{name}"], rtol=0, atol=1e-6, err_msg=name)
    assert_allclose(x.ravel()[:8], golden[f"{prefix}_first8"], rtol=0, atol=2e-5)
    assert_allclose(x.ravel()[-8:], golden[f"{prefix}_last8"], rtol=0, atol=2e-5)


# ---------------------------------------------------------------- networks
@torch.inference_mode()
def run_forward(golden: Arrays, match: re.Match[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = network_of(match, golden)
    sizes, modalities = (model.template_size, model.search_size), model.modalities
    images = recipe().model_inputs(*sizes, channels=3 * modalities, batch=2)
    template, search = (
        torch.from_numpy(np.stack([recipe().normalise(image) for image in batch])).view(2, modalities, 3, size, size)
        for batch, size in zip(images, sizes, strict=True)
    )
    seen: list[Tensor] = []
    features = model.features

    def record(*crops: Tensor) -> Tensor:
        seen.append(features(*crops))
        return seen[-1]

    monkeypatch.setattr(model, "features", record)
    found = model(template, search)
    assert_checksum(seen[0], golden, "backbone")
    dropped = getattr(model, "removed", [])
    assert [f"removed_{index}" for index in range(len(dropped))] == sorted(n for n in golden if n.startswith("removed"))
    for index, removed in enumerate(dropped):
        assert_array_equal(removed, golden[f"removed_{index}"].reshape(removed.shape))
    for name, value, tolerance in (
        ("score_map", found.score, 2e-5),
        ("size_map", found.size, 5e-6),
        ("offset_map", found.offset, 5e-5),
        ("pred_boxes", found.boxes[:, None], 2e-6),
        ("pred_argmax", found.score.flatten(1).argmax(1), 0),
    ):
        assert_allclose(value, golden[name], rtol=0, atol=tolerance, err_msg=name)


def run_position_embeddings(golden: Arrays, match: re.Match[str], _: pytest.MonkeyPatch) -> None:
    grid = weight("backbone.pos_embed", (1, 197, 768))
    for name in ("pos_embed_z", "pos_embed_x"):
        side = int(golden[f"{name}_shape"][1] ** 0.5)
        assert_checksum(interpolate_positions(grid, side), golden, name)


def run_tracking(golden: Arrays, match: re.Match[str], _: pytest.MonkeyPatch) -> None:
    model = network_of(match, golden)
    seen: list[Prediction] = []
    hook = model.register_forward_hook(lambda _module, _arguments, found: seen.append(found))
    try:
        images = recipe().sequence(3 * model.modalities)
        frames = [Frame(image[..., :3], image[..., 3:] if model.modalities == 2 else None) for image in images]
        tracker = Tracker(model)
        tracker.init(frames[0], golden["boxes"][0])
        found = [tracker.update(frame) for frame in frames[1:]]
    finally:
        hook.remove()
    scores = torch.cat([prediction.score for prediction in seen])
    windowed = (scores * hann(scores.shape[-1])).flatten(1)
    assert_array_equal(windowed.argmax(1), golden["peak_index"][1:])
    at_peak = scores.flatten(1).gather(1, windowed.argmax(1, keepdim=True))[:, 0]
    assert_allclose(at_peak, golden["raw_score_at_peak"][1:], rtol=0, atol=1e-4)
    assert_allclose([output.score for output in found], golden["hann_score"][1:], rtol=0, atol=1e-4)
    assert_allclose(np.stack([output.box for output in found]), golden["boxes"][1:], rtol=0, atol=0.02)
    assert_allclose(scores[-1:], golden["last_score_map"], rtol=0, atol=1e-4)


# ---------------------------------------------------------------- crops, boxes, images
def run_crops(golden: Arrays, match: re.Match[str], _: pytest.MonkeyPatch) -> None:
    told = json.loads(find(f"{match[0]}.json").read_text())
    image = recipe().image(told["image"], told["height"], told["width"], told["channels"])
    boxes = list(dict.fromkeys(tuple(case["box"]) for case in told["cases"]))
    unread = set(golden)
    for case in told["cases"]:
        size = case["out"]
        found, scale = crop(image, case["box"], case["factor"], size)
        mask = crop_mask(image.shape, case["box"], case["factor"], size)
        flat = found.ravel().astype(np.int64)
        summary = {
            "resize_factor": scale,
            "crop_sz": round(size / scale),
            "sum": flat.sum(),
            "wsum": (flat * (np.arange(flat.size) % 9973)).sum(),
            "crc32": zlib.crc32(found.tobytes()),
            "mask_true": mask.sum(),
            "mask_crc32": zlib.crc32(np.packbits(mask).tobytes()),
            "first_row8": found[0, :8, 0].tolist(),
            "mid_row8": found[size // 2, size // 2 : size // 2 + 8, 0].tolist(),
        }
        assert summary == {name: case[name] for name in summary}, case["box"]
        where = f"{boxes.index(tuple(case['box']))}_{case['factor']:g}_{size}"
        for name, value in (("crop", found), ("crop8", found[::8, ::8]), ("mask", np.packbits(mask))):
            if f"{name}_{where}" in golden:
                assert_array_equal(value, golden[f"{name}_{where}"])
                unread.discard(f"{name}_{where}")
    assert not unread


def run_boxes(golden: Arrays, match: re.Match[str], _: pytest.MonkeyPatch) -> None:
    inside = to_crop(golden["box"], golden["extract"], float(golden["resize_factor"]), int(golden["crop_size"]))
    assert_allclose(inside, golden["to_crop_normalised"], rtol=0, atol=1e-6)
    kept = clip(golden["clip_in"], int(golden["clip_H"]), int(golden["clip_W"]), int(golden["clip_margin"]))
    assert_allclose(kept, golden["clip_out"], rtol=0, atol=1e-9)


def run_normalise(golden: Arrays, match: re.Match[str], _: pytest.MonkeyPatch) -> None:
    assert_array_equal(normalise(torch.from_numpy(golden["image"]).permute(2, 0, 1))[None], golden["tensor"])


def run_jitter(golden: Arrays, match: re.Match[str], _: pytest.MonkeyPatch) -> None:
    for row in golden["rows"].astype(np.float64):
        found = jitter(row[2:6], scale=row[0], centre=row[1], normal=row[6:8], uniform=row[8:10])
        assert_allclose(found, row[10:], rtol=0, atol=1e-4)


def run_hann(golden: Arrays, match: re.Match[str], _: pytest.MonkeyPatch) -> None:
    for name, window in golden.items():
        assert_array_equal(hann(int(name.removeprefix("hann")))[None, None], window)


# ---------------------------------------------------------------- losses and tuning
def run_losses(golden: Arrays, match: re.Match[str], _: pytest.MonkeyPatch) -> None:
    truth = torch.from_numpy(golden["gt_xywh"])
    score = torch.from_numpy(golden["score"]).requires_grad_()
    boxes = torch.from_numpy(golden["pred_cxcywh"]).requires_grad_()
    n = score.shape[-1]
    peak = score.flatten(1).argmax(1)
    cell = torch.stack((peak % n, peak // n), 1)
    size, offset = (part[:, :, None, None].expand(-1, -1, n, n) for part in (boxes[:, 2:], boxes[:, :2] * n - cell))
    target = heatmap(truth, n)
    assert_allclose(target, golden["heatmap"], rtol=0, atol=1e-6)
    terms = tracking_losses(Prediction(score, size, offset), truth)
    terms["total"].backward()
    assert score.grad is not None
    assert boxes.grad is not None
    low, sides = truth.split(2, 1)
    predicted = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    iou = giou(predicted, torch.cat([low, low + sides], 1).clamp(0, 1))[1]
    for name, value in {
        **{name: terms[name].detach() for name in ("focal", "giou", "l1", "total")},
        "grad_score_sum": score.grad.double().sum(),
        "grad_score_abssum": score.grad.double().abs().sum(),
        "focal_no_positive": focal_loss(score, torch.where(target == 1, 0.999, target)).detach(),
    }.items():
        assert_allclose(value, golden[name], rtol=1e-5, err_msg=name)
    for name, array in (("iou", iou.detach()), ("grad_score", score.grad), ("grad_pred", boxes.grad)):
        assert_allclose(array, golden[name], rtol=1e-5, atol=1e-6, err_msg=name)


def run_momentum_rule(golden: Arrays, match: re.Match[str], _: pytest.MonkeyPatch) -> None:
    """To the rounding of float32: a coefficient that is one rank off moves a parameter 30 times the tolerance."""
    from mstrack.tuning import MST, TunedAdamW

    steps = sorted({int(key.split("/")[0][1:]) for key in golden})
    names = sorted({key.split("/")[1] for key in golden})
    parameters = {name: torch.nn.Parameter(torch.from_numpy(golden[f"s0/{name}/before"])) for name in names}
    tuning = MST(momentum=(0.25, 0.65), update="released")
    optimizer = TunedAdamW(parameters.items(), tuning, lr=0.01, weight_decay=1e-4)
    for step in steps:
        for name, parameter in parameters.items():
            assert_allclose(parameter.detach(), golden[f"s{step}/{name}/before"], rtol=0, atol=1e-6)
            parameter.grad = torch.from_numpy(golden[f"s{step}/{name}/grad"])
        optimizer.step()
        for name, parameter in parameters.items():
            assert_allclose(parameter.detach(), golden[f"s{step}/{name}/after"], rtol=0, atol=1e-6)


RUNNERS: dict[str, Callable[[Arrays, re.Match[str], pytest.MonkeyPatch], None]] = {
    r"\w+_posembed": run_position_embeddings,
    NETWORK: run_forward,
    f"track_{NETWORK}": run_tracking,
    r"crops_\w+": run_crops,
    r"boxes": run_boxes,
    r"normalise": run_normalise,
    r"jitter\w*": run_jitter,
    r"hann": run_hann,
    r"losses_\w+": run_losses,
    r"momentum_rule\w*": run_momentum_rule,
}
"""Name of a file -> what it holds our code against; the first that matches."""


def runner_of(stem: str) -> tuple[Callable[..., None], re.Match[str]] | None:
    matches = ((run, re.fullmatch(pattern, stem)) for pattern, run in RUNNERS.items())
    return next(((run, match) for run, match in matches if match), None)


def weights_first(path: Path) -> tuple[Any, ...]:
    """Files of one network beside each other, so that it is built once."""
    return path.stem.removeprefix("track_"), path.stem


def test_there_are_goldens() -> None:
    if not FOLDER.is_dir() and "MST_GOLDEN" not in os.environ:
        pytest.skip("no ../shared/golden beside this checkout, and MST_GOLDEN names no other folder")
    assert list(FOLDER.glob("*.npz")), f"no .npz in {FOLDER}"


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in sorted(FOLDER.glob("*.npz"), key=weights_first)])
def test_golden(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = runner_of(path.stem)
    if known is None:
        pytest.fail(f"{path.name}: no test knows this name; the patterns are {', '.join(RUNNERS)}")
    run, match = known
    with np.load(path) as arrays:
        run(dict(arrays), match, monkeypatch)


@pytest.mark.parametrize(
    ("stem", "runner"),
    [
        ("ostrack256_ce", run_forward),
        ("ostrack384_ce_dropmae", run_forward),
        ("dualstream384_dropmae_own", run_forward),
        ("vipt_deep256", run_forward),
        ("track_dualstream256_own", run_tracking),
        ("ostrack384_posembed", run_position_embeddings),
        ("momentum_rule_2", run_momentum_rule),
        ("jitter_b", run_jitter),
        ("ostrack257", None),
        ("track", None),
        ("hann2d", None),
    ],
)
def test_names_find_their_runner(stem: str, runner: Callable[..., None] | None) -> None:
    known = runner_of(stem)
    assert (known[0] if known else None) is runner
