"""ONNX: every family exports, the file says what it is, and `mst export`, `mst track` do with it what they do without."""

import dataclasses
import json
import math
from pathlib import Path

import moving_squares
import numpy as np
import pytest
import torch
from commands import mst
from lively import lively
from torch import Tensor

from mstrack import checkpoint, create_model
from mstrack.backends import Geometry, open_backend
from mstrack.backends.onnxfile import OnnxFile, write_onnx
from mstrack.errors import UserError
from mstrack.export import LIMITS, Parity, compare_boxes, compare_maps
from mstrack.registry import MODELS
from mstrack.results import read_track

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

SMALL = {"width": 16, "heads": 2, "head_channels": 8}
FAMILIES: dict[str, dict[str, object]] = {
    "ceutrack": {"depth": 1},
    "ostrack": {"depth": 1},
    "protrack": {"depth": 1},
    "sdstrack": {"depth": 4, "elimination": True},
    "vipt": {"depth": 2, "elimination": False},
}
"""As few layers as show all that a family does; `mst` has a test of its own."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, a clip, and what `mst export` made and said of the checkpoint."""
    root = tmp_path_factory.mktemp("export")
    moving_squares.load(root, "test", sequences=1)
    network = lively("mst-tiny", **SMALL, depth=1, cross_layers=(0,))
    checkpoint.save(root / "small.safetensors", network, {"config": {"data": {"modality": "event"}}})
    done = mst("export", root / "small.safetensors", root / "small.onnx")
    assert done.returncode == 0, done.stderr
    (root / "said.txt").write_text(done.stdout)
    return root


def test_export_prints_the_differences(place: Path) -> None:
    said = (place / "said.txt").read_text()
    for name in (*LIMITS, "boxes of 20 frames"):
        assert name in said
    assert sorted(path.name for path in place.iterdir()) == ["said.txt", "small.onnx", "small.safetensors", "test"]


def test_the_file_says_what_it_is(place: Path) -> None:
    model = onnx.load(place / "small.onnx")
    onnx.checker.check_model(model)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["name"] == "mst-tiny"
    assert json.loads(said["arguments"])["depth"] == 1
    assert "batch x modality" in json.loads(said["axes"])["template, search"]
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes["template"] == ["batch", 2, 3, 32, 32]
    assert shapes["search"] == ["batch", 2, 3, 64, 64]
    assert shapes["offset"][1:] == [2, 8, 8]
    opened = open_backend(place / "small.onnx")
    assert (opened.name, opened.geometry) == ("onnx", Geometry(32, 64, 2.0, 4.0, 2))
    assert opened.provenance["config"]["data"]["modality"] == "event"


@torch.inference_mode()
def test_any_batch_gives_the_maps_of_the_network(place: Path) -> None:
    network, opened = checkpoint.load(place / "small.safetensors"), open_backend(place / "small.onnx")
    for batch in (1, 2, 5):
        template, search = (torch.randn(part.shape) for part in network.inputs(batch))
        for ours, theirs in zip(network(template, search), opened(template, search), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def test_track_takes_the_file_or_exports_on_the_way(place: Path, tmp_path: Path) -> None:
    clip = place / "test" / "square0"
    given = ["--rgb", clip / "rgb", "--aux", clip / "thermal", "--box", "38,40,16,14"]
    found = []
    for number, tracker in enumerate(
        ([place / "small.onnx"], [place / "small.safetensors"], [place / "small.safetensors", "--backend", "onnx"])
    ):
        done = mst("track", *tracker, *given, "--out", tmp_path / f"{number}")
        assert done.returncode == 0, done.stderr
        track = read_track(tmp_path / f"{number}", "track")
        assert track is not None
        found.append(track.boxes)
        run = json.loads((tmp_path / f"{number}" / "run.json").read_text())
        assert (run["backend"], run["modality"]) == ("eager" if number == 1 else "onnx", "event")
    np.testing.assert_allclose(found[0], found[1], atol=0.05)
    np.testing.assert_allclose(found[2], found[1], atol=0.05)


def test_parity_fails_for_another_network(place: Path) -> None:
    network, opened = checkpoint.load(place / "small.safetensors"), open_backend(place / "small.onnx")
    same = Parity(compare_maps(network, opened), compare_boxes(network, opened), 20)
    assert same.holds
    with torch.no_grad():
        network.head.score[-1].bias += 0.5
        network.blocks_rgb[0].mlp.fc1.weight *= 1.5
    other = Parity(compare_maps(network, opened), compare_boxes(network, opened), 20)
    assert not other.holds
    assert other.maps["score"] > 1e-3
    assert other.boxes > 0.05

    def silent(template: Tensor, search: Tensor) -> tuple[Tensor, ...]:
        return tuple(maps * math.nan for maps in opened(template, search))

    broken = compare_maps(network, dataclasses.replace(opened, run=silent))
    assert math.isnan(broken["score"])
    assert not Parity(broken, 0.0, 20).holds


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_every_family_exports(family: str, tmp_path: Path) -> None:
    network = lively(f"{family}-tiny", **SMALL, **FAMILIES[family]).eval()
    write_onnx(network, tmp_path / "out.onnx")
    opened = OnnxFile(tmp_path / "out.onnx", torch.device("cpu"))
    for batch in (1, 3):
        template, search = (torch.randn(part.shape) for part in network.inputs(batch))
        for ours, theirs in zip(network(template, search), opened(template, search), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=0, atol=2e-5)


def test_the_table_above_is_the_catalogue() -> None:
    assert {name.partition("-")[0] for name in MODELS} == {*FAMILIES, "mst"}


def test_what_cannot_be_exported_is_said(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"takes 4 inputs \(event voxels\)"):
        write_onnx(create_model("ceutrack-tiny", events="voxels"), tmp_path / "out.onnx")
    for arguments, says in (
        (["export", place / "small.safetensors", tmp_path / "out.pt"], "should end in .onnx"),
        (["export", place / "small.safetensors", tmp_path / "none" / "out.onnx"], "there is no folder"),
        (["export", "no-such-weight", tmp_path / "out.onnx"], "there is no checkpoint file no-such-weight"),
        (["eval", place / "small.onnx"], "takes the checkpoint itself, with --backend onnx"),
    ):
        done = mst(*arguments)
        assert done.returncode == 2, (done.returncode, done.stderr)
        assert says in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_ours_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no ONNX file"):
        open_backend(tmp_path / "none.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"no protobuf at all")
    with pytest.raises(UserError, match="is not an ONNX file that can be run"):
        open_backend(tmp_path / "noise.onnx")
    model = onnx.load(place / "small.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match="of format 'none', expected 'mstrack onnx 1': write it with `mst export`"):
        open_backend(tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match="is run by ONNX Runtime: backend 'onnx' or 'auto', not 'eager'"):
        open_backend(place / "small.onnx", "eager")
    with pytest.raises(UserError, match="computes in fp32, not in bf16"):
        open_backend(place / "small.onnx", "auto", precision="bf16")
