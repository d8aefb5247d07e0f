"""What README and docs/data.md show is there: commands parse, names exist, Python runs. Two long commands run in `.ci/run`."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mstrack.data import rgb, rgbd, synthetic
from mstrack.data.splits import split_names
from mstrack.registry import DATASETS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
GROUPS = ("config", "data", "vot")
"""Commands that have commands of their own."""
MST = [line for line in COMMANDS if line.startswith("mst ")]


def test_it_is_short_and_has_the_two_commands() -> None:
    assert len(README.splitlines()) <= 150
    assert sum(line.startswith("python3 -m venv .venv && ") for line in COMMANDS) == 2


@pytest.mark.parametrize("command", MST)
def test_options_of_the_commands_exist(command: str) -> None:
    words = shlex.split(command.replace("|", " "))[1:]
    named = words[: 2 if words[0] in GROUPS else 1]
    shown = subprocess.run([sys.executable, "-m", "mstrack", *named, "--help"], capture_output=True, text=True, check=True)
    for word in words[len(named) :]:
        if word.startswith("--"):
            assert word in shown.stdout, f"`{command}` has no option {word}"


def test_files_that_it_names_exist() -> None:
    root = Path(__file__).parents[1]
    for path in re.findall(r"\]\(([^)]+)\)", README):
        assert (root / path).is_file(), path
    tree = next(block for kind, block in BLOCKS if not kind and block.startswith("mstrack/"))
    package = {p.name for p in root.rglob("*.py")} | {p.name for p in root.rglob("*.md")}
    for name in re.findall(r"\b\w+\.(?:py|md)\b", tree):
        assert name in package, name


def test_the_page_on_data_names_every_split() -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w -]+?) \| (.+?) \|", page, flags=re.MULTILINE))
    own = {**rgb.SPLITS, **rgbd.SPLITS, "synthetic": synthetic.SPLITS, "own": ("train", "val", "test", "all")}
    without_all = {"coco", "synthetic"}
    for name in DATASETS:
        splits = set(own.get(name) or split_names(name))
        assert ("all" in splits) == (name not in without_all)
        assert splits - {"all"} == set(re.findall(r"`([\w-]+)`", rows["your own" if name == "own" else name])), name
    assert rows["all but coco and synthetic"] == "`all`"


def test_its_python_runs() -> None:
    code = next(block for kind, block in BLOCKS if kind == "python" and "Tracker(" in block)
    frames = np.random.default_rng(0).integers(0, 255, (4, 120, 160, 3), dtype=np.uint8)
    names = dict(zip(("rgb", "thermal", "next_rgb", "next_thermal"), frames, strict=True))
    scope = {**names, "x": 40, "y": 30, "w": 20, "h": 25}
    exec(code, scope)
    assert scope["out"].box.shape == (4,)
    assert 0 <= scope["out"].score <= 1
