"""What docs/weights.md says is so: every tracker is there, commands parse, names are those that are looked for, Python runs."""

import re
import shlex
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml

from mstrack import checkpoint
from mstrack.cli import app
from mstrack.models import create_model
from mstrack.registry import MODELS

PAGE = (Path(__file__).parents[1] / "docs" / "weights.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
NAMED = {words for words in re.findall(r"`(mst [^`]+)`", PAGE) if "*" not in words}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_has_its_place(name: str) -> None:
    family, _, size = name.rpartition("-")
    assert f"`{name}`" in PAGE or (size == "tiny" and f"`{family}-" in PAGE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    program, name, *words = shlex.split(command)
    commands = typer.main.get_command(app)
    assert program == "mst"
    commands.commands[name].make_context(name, words)


@pytest.mark.parametrize("command", sorted(NAMED))
def test_commands_in_the_text_exist(command: str) -> None:
    commands = typer.main.get_command(app)
    _, name, *options = command.split()
    known = {option for parameter in commands.commands[name].params for option in parameter.opts}
    assert {word for word in options if word.startswith("--")} <= known


def test_the_names_are_those_that_reproduce_looks_for() -> None:
    folder = resources.files("mstrack") / "reproduce"
    rows, scales = (yaml.safe_load((folder / file).read_text(encoding="utf-8")) for file in ("rows.yaml", "scales.yaml"))
    wanted = {name for row in rows.values() for name in row.get("released", {}).values()}
    wanted |= {foundation["weights"] for foundation in scales["paper"]["foundations"].values()}
    assert wanted >= {"ostrack-b256", "droptrack-b384"}
    made = {Path(command.split()[-1]).stem for command in COMMANDS if command.startswith("mst convert")}
    assert made >= wanted


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    torch.manual_seed(0)
    network = create_model("ceutrack-tiny", events="voxels")
    checkpoint.save("weights/ceutrack-b256.safetensors", network, {})
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (2, 260, 346, 3), dtype=np.uint8)
    cells = np.column_stack([generator.integers(0, end, 5000) for end in (20, 35, 26)])
    voxels = np.concatenate((cells, generator.integers(-1, 2, (5000, 16))), axis=1)
    scope = {"first_image": frames[0], "image": frames[1], "first_voxels": voxels, "voxels": voxels, "box": (120, 100, 40, 30)}
    (code,) = (block for kind, block in BLOCKS if kind == "python")
    exec(code, scope)
    assert scope["prediction"].boxes.shape == (1, 4)


def test_convert_shows_and_keeps_the_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    source, target = tmp_path / "tracker.pth.tar", tmp_path / "tracker.safetensors"
    torch.manual_seed(0)
    model = create_model("ostrack-tiny")
    torch.save({"net": model.state_dict()}, source)
    typer.main.get_command(app)(["convert", str(source), str(target), "--model", "ostrack-tiny"], standalone_mode=False)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert digest in "".join(capsys.readouterr().out.split())
    assert checkpoint.load(target).provenance["sha256"] == digest
