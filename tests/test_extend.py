"""What docs/extend.md shows runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import mst
from torch import Tensor, nn

import mstrack
from mstrack import checkpoint
from mstrack.backends import open_backend
from mstrack.data import load_sequences
from mstrack.errors import UserError
from mstrack.models.blocks import Mlp
from mstrack.tuning import build_tuning, effective_rate

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
MODULES = {
    code.partition(".py")[0].removeprefix("# "): code for code in re.findall(r"```python\n(# \w+\.py\n.*?)```", PAGE, re.DOTALL)
}
NETWORK = "my_network:crossing_tiny"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the modules of the page, which is the current one."""
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_network_of_ones_own_starts_from_a_tracker_and_is_loaded_again(here: Path) -> None:
    made = mstrack.create_model(NETWORK)
    assert {name.partition(".")[0] for name, p in made.named_parameters() if p.requires_grad} == {"embed_aux", "looks", "share"}
    checkpoint.load_into(made, "ostrack-tiny")
    shipped = mstrack.load("ostrack-tiny")
    crops = [torch.randn(part.shape, generator=torch.Generator().manual_seed(0)) for part in made.inputs()]
    found, expected = made.eval()(*crops), shipped(*(part[:, :1] for part in crops))
    assert torch.equal(found.score, expected.score), "a share of 0 is the tracker that it started from"
    with torch.no_grad():
        made.share.fill_(0.5)
    checkpoint.save("mine.safetensors", made, {})
    again = mstrack.load("mine.safetensors", NETWORK)
    assert torch.equal(again(*crops).score, made(*crops).score)
    alias = mstrack.load("mine.safetensors", "my_network:Crossing", **made_arguments())
    assert torch.equal(alias(*crops).score, made(*crops).score)


def made_arguments() -> dict[str, Any]:
    import my_network

    return dict(my_network.crossing_tiny.keywords)


def test_a_checkpoint_of_another_size_of_it_says_what_differs(here: Path) -> None:
    checkpoint.save("mine.safetensors", mstrack.create_model(NETWORK, depth=2), {})
    with pytest.raises(UserError, match=r"not the weights of model 'my_network:crossing_tiny'.*missing: blocks\.2\."):
        mstrack.load("mine.safetensors", NETWORK, depth=4)
    with pytest.raises(UserError, match="a dual-stream tracker"):
        checkpoint.load_into(mstrack.create_model(NETWORK), "mst-tiny-thermal")


@torch.inference_mode()
def test_the_layout_of_onednn_is_the_network(here: Path) -> None:
    """Its attention reads the weights of a linear layer, and adapters are often subclasses of such layers."""
    made = mstrack.create_model(NETWORK).eval()
    made.share.fill_(0.5)
    crops = [torch.randn(part.shape, generator=torch.Generator().manual_seed(0)) for part in made.inputs()]
    for layer in (made.blocks[0].attn.qkv, made.blocks[1].mlp):
        layer.__class__ = {nn.Linear: Negated, Mlp: Skipped}[type(layer)]
    expected = made(*crops)
    for backend in ("eager", "onednn"):
        found = open_backend(made, backend)(*crops)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_a_method_of_ones_own_trains_resumes_and_is_compared_over_seeds(here: Path) -> None:
    source = {"name": "moving_squares:load", "root": "squares", "arguments": {"sequences": 6}}
    recipe: dict[str, Any] = {
        "model": {"name": "mst-tiny", "arguments": {"width": 32, "depth": 2, "heads": 2, "cross_layers": [1]}},
        "data": {"modality": "thermal", "min_frames": 5, "train": [{**source, "split": "train"}]},
        "tuning": {"name": "my_method:LayerRanks"},
        "train": {"lr": 1e-3, "epochs": 1, "samples": 12, "batch": 4, "val_clips": 0, "val_samples": 0},
        "run": {"workers": 0, "tensorboard": False, "device": "cpu"},
    }
    whole = mstrack.load(mstrack.train(recipe, ["run.out=whole"])).state_dict()
    steps = iter((False, True))
    mstrack.train(recipe, ["run.out=cut"], interrupted=lambda: next(steps))
    assert not Path("cut/model.safetensors").exists()
    resumed = mstrack.load(mstrack.train(recipe, ["run.out=cut"])).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    import my_look

    looked = my_look.look("whole", (".qkv.weight",), batches=1)
    assert {name: value.shape for name, value in looked.items()} == {
        name: value.shape for name, value in whole.items() if name.endswith(".qkv.weight")
    }
    assert all((value >= 0).all() and value.any() for value in looked.values())
    assert effective_rate(build_tuning("my_method:LayerRanks")) == pytest.approx(0.225)

    import my_study

    del recipe["tuning"]
    (header, rows), said = my_study.study(
        recipe, seeds=2, on="moving_squares:load", root=Path("squares"), modality="thermal", arguments={"sequences": 6}
    )
    assert [row[0] for row in rows] == list(my_study.METHODS)
    assert "±" in rows[0][header.index("SR")]
    assert said.startswith("Against MST: ranks of layers is")
    assert Path("study/report.html").is_file()


def test_data_of_ones_own_are_tracked_and_scored_by_a_metric_of_ones_own(here: Path) -> None:
    for index in range(6):
        boxes = np.array([[20 + t, 30 + index, 16, 14] for t in range(5)])
        radar = np.full((5, 80, 100), 100, np.uint16)
        for picture, (x, y, w, h) in zip(radar, boxes, strict=True):
            picture[y : y + h, x : x + w] = 40000
        rgb = np.repeat((radar >> 8).astype(np.uint8)[..., None], 3, axis=-1)
        path = here / "radar" / "test" / f"clip{index}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, rgb=rgb, radar=radar, boxes=boxes, present=np.ones(5, bool), attributes=np.array(["rain", "night"]))
    found = mstrack.evaluate("mst-tiny-thermal", on="my_data:clips", root=Path("radar"))
    assert found.sequences[0].attributes == ("rain", "night")
    assert found.sequences[0].frame(2).aux.shape == (80, 100, 3)
    assert repr(found.sequences[0]) == "Sequence('clip0', 5 frames, thermal)"
    assert len(repr(found)) < 300

    import my_metric

    mean, low, high = my_metric.frames_until_lost(found)
    assert 0 <= low <= mean <= high <= 100
    done = mst("data", "check", "my_data:clips", "--root", "radar", cwd=here)
    assert done.returncode == 0, done.stderr


def test_what_is_no_data_set_and_no_network_is_told(here: Path) -> None:
    (here / "my_mistakes.py").write_text(
        "import my_data, torch\n"
        "def lazy(root, split):\n    yield from my_data.clips(root, split)\n"
        "def rootless(split):\n    return []\n"
        "def numbers(root, split):\n    return [1]\n"
        "def nothing(root, split):\n    return []\n"
    )
    for name, says in (
        ("rootless", r"takes \(split\)"),
        ("numbers", "returned a int"),
        ("nothing", "no sequences\\."),
        ("lazy", "no seq"),
    ):
        with pytest.raises(UserError, match=says):
            load_sequences(f"my_mistakes:{name}", "test", here if name == "lazy" else None)
    np.savez(here / "test.npz", boxes=[[1, 2, 3, 4]], present=[True], attributes=np.array([], str))
    (here / "test").mkdir()
    (here / "test.npz").rename(here / "test" / "clip.npz")
    assert [sequence.name for sequence in load_sequences("my_mistakes:lazy", "test", here)] == ["clip"]
    with pytest.raises(UserError, match=r"makes a Identity, expected a mstrack\.models\.network\.Network"):
        mstrack.create_model("torch.nn:Identity")


class Negated(nn.Linear):
    """A linear layer with more to it."""

    def forward(self, tokens: Tensor) -> Tensor:
        return -super().forward(tokens)


class Skipped(Mlp):
    """An MLP with less to it."""

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros_like(tokens)
