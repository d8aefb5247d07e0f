"""What docs/extend.md shows runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import mst
from torch import Tensor, nn

import mstrack
from mstrack import checkpoint
from mstrack.backends import open_backend
from mstrack.errors import UserError
from mstrack.models.blocks import Mlp

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
def test_every_backend_runs_it(here: Path) -> None:
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
    checkpoint.save("mine.safetensors", mstrack.create_model(NETWORK), {})
    done = mst("export", "mine.safetensors", "mine.onnx", "--model", NETWORK, cwd=here)
    assert done.returncode == 0, done.stderr


class Negated(nn.Linear):
    """A linear layer with more to it."""

    def forward(self, tokens: Tensor) -> Tensor:
        return -super().forward(tokens)


class Skipped(Mlp):
    """An MLP with less to it."""

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros_like(tokens)
