"""Several processes train as one does; one that dies costs no more than the steps since the last saved state."""

import datetime
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from mstrack import checkpoint
from mstrack.assembly import build_model
from mstrack.config import load_config
from mstrack.distributed import agree_on_start, start, torchrun_rank
from mstrack.errors import UserError
from mstrack.journal import read_curves
from mstrack.training import train

TESTS = Path(__file__).parent
STEPS = 20
RECIPE = {
    "model": {"name": "mst-tiny", "arguments": {"width": 32, "depth": 2, "heads": 2, "cross_layers": [1]}},
    "data": {"modality": "thermal", "min_frames": 5, "modality_dropout": 0.3},
    "tuning": {"name": "witness:Witness", "parameters": {"head.*": 0, "position_*": 0, "*": 1}},
    "train": {"lr": 1e-4, "epochs": 1, "samples": 4 * STEPS, "batch": 4, "val_samples": 4, "val_clips": 2, "val_frames": 4},
    "run": {"workers": 0, "save_every": 3, "log_every": 5, "tensorboard": False, "device": "cpu"},
}


def write_recipe(folder: Path, **run: object) -> Path:
    """The recipe of a run in this folder, as a file, with more settings of the section `run`."""
    source = {"name": "moving_squares:load", "root": str(folder.parent / "squares")}
    sources = {split: [{**source, "split": split}] for split in ("train", "val")}
    tuning = {**RECIPE["tuning"], "arguments": {"folder": str(folder / "witness")}}
    tree = {**RECIPE, "data": {**RECIPE["data"], **sources}, "tuning": tuning, "run": {**RECIPE["run"], **run}}
    tree["run"]["out"] = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.json"
    path.write_text(json.dumps(tree))
    return path


def start_torchrun(world: int, recipe: Path, restarts: int = 0, dies: str = "") -> subprocess.Popen[str]:
    """`mst train` in several processes. The shell's variables in `recipe` are each rank's."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    line += [f"--max-restarts={restarts}", "--monitor-interval=0.1", "--no-python"]
    line += ["sh", "-c", f"exec {sys.executable} -m mstrack train {recipe}"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "WITNESS_DIES": dies}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def torchrun(world: int, recipe: Path, restarts: int = 0, dies: str = "") -> tuple[int, str]:
    """Exit code and error output; a run that hangs is an error."""
    process = start_torchrun(world, recipe, restarts, dies)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def read_witness(folder: Path, rank: int) -> list[tuple[int, int, str]]:
    """Start, step and digest of each step of a rank."""
    rows = (line.split() for line in (folder / "witness" / f"{rank}.txt").read_text().splitlines())
    return [(int(start), int(step), digest) for start, step, digest in rows]


def test_every_start_gets_a_name_of_its_own_whatever_an_earlier_one_left() -> None:
    store, patience = dist.HashStore(), datetime.timedelta(seconds=20)
    starts = []
    for world in (3, 2, 3):
        for rank in (2, 1):  # of a start whose first rank never came
            store.set(f"came/{rank}", f"stale{rank}")
        with ThreadPoolExecutor(world) as pool:
            ranks = [pool.submit(agree_on_start, store, rank, world, patience) for rank in range(world)]
            names = {rank.result() for rank in ranks}
        assert len(names) == 1
        starts.append(names.pop())
    assert len(set(starts)) == 3
    with pytest.raises(RuntimeError, match=r"rank\(s\) \[1\] did not come"):
        agree_on_start(store, 0, 2, datetime.timedelta(seconds=0.1))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same recipe by one, two and four processes, in folders of these names; by two also with recorded passes."""
    folder = tmp_path_factory.mktemp("runs")
    sys.path.insert(0, str(TESTS))
    train(write_recipe(folder / "1"))
    for world in (2, 4):
        code, errors = torchrun(world, write_recipe(folder / str(world)))
        assert code == 0, errors[-2000:]
    code, errors = torchrun(2, write_recipe(folder / "2-recorded", graph=True))
    assert code == 0, errors[-2000:]
    return folder


def states(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """What the optimizer and the tuning method remember of each parameter at the end of a run."""
    optimizer = checkpoint.load_state(folder / "state.safetensors")["optimizer"]
    names = [name for group in optimizer["param_groups"] for name in group["param_names"]]
    return {name: optimizer["state"][index] for index, name in enumerate(names)}


@pytest.mark.parametrize("name", ["2", "2-recorded", "4"])
def test_several_processes_train_as_one(runs: Path, name: str) -> None:
    alone, together = (load_file(runs / run / "model.safetensors") for run in ("1", name))
    config = load_config(runs / "1" / "recipe.json")
    torch.manual_seed(config.train.seed)
    start = build_model(config).state_dict()
    assert max(float((alone[weight] - start[weight]).abs().max()) for weight in alone) > 1e-4
    for weight, value in alone.items():
        assert (value - together[weight]).abs().max() <= 1e-6, weight
    mine, theirs = states(runs / "1"), states(runs / name)
    for weight, state in mine.items():
        for key, value in state.items():
            scale = float(value.abs().max()) + 1e-12
            assert (value - theirs[weight][key]).abs().max() <= 1e-3 * scale, (weight, key)
    names = {f"{part}/{key}": key for part, key in (("train", "total"), ("train", "iou"), ("val", "loss"), ("val", "SR"))}
    expected, found = (read_curves(runs / run, names) for run in ("1", name))
    assert [step for step, _ in expected["total"]] == [5, 10, 15, 20]
    for key, points in expected.items():
        assert np.allclose(found[key], points, rtol=1e-4), key


@pytest.mark.parametrize("name", ["2", "2-recorded", "4"])
def test_weights_and_tuning_state_are_the_same_bits_on_every_rank(runs: Path, name: str) -> None:
    first, *others = (read_witness(runs / name, rank) for rank in range(int(name.split("-")[0])))
    assert [step for _, step, _ in first] == list(range(1, STEPS + 1))
    assert len({digest for *_, digest in first}) == STEPS
    assert all(other == first for other in others)


def test_a_rank_that_is_killed_costs_the_steps_since_the_last_save(runs: Path) -> None:
    """torchrun starts all ranks anew; they go on from the saved state and end with the bits of a run that nobody disturbed."""
    folder = runs / "killed"
    code, errors = torchrun(2, write_recipe(folder), restarts=1, dies="1:8")
    assert code == 0, errors[-2000:]
    assert [(start, step) for start, step, _ in read_witness(folder, 1)] == [
        *((0, step) for step in range(1, 9)),
        *((1, step) for step in range(7, STEPS + 1)),
    ]
    expected, found = (load_file(runs / name / "model.safetensors") for name in ("2", "killed"))
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_without_restarts_a_run_ends_when_a_rank_is_killed_and_goes_on_when_asked(runs: Path) -> None:
    folder = runs / "ended"
    recipe = write_recipe(folder)
    code, _ = torchrun(2, recipe, dies="0:8")
    assert code != 0
    assert checkpoint.load_state(folder / "state.safetensors")["step"] == 6
    train(recipe)
    expected, found = (load_file(runs / name / "model.safetensors") for name in ("1", "ended"))
    for name, value in expected.items():
        assert (value - found[name]).abs().max() <= 1e-6, name


def test_ranks_that_see_different_folders_are_told(runs: Path, tmp_path: Path) -> None:
    """As on two machines whose run.out is not one shared folder."""
    for rank in "01":
        write_recipe(tmp_path / rank)
    state = tmp_path / "0" / "state.safetensors"
    state.write_bytes((runs / "1" / "state.safetensors").read_bytes())
    code, errors = torchrun(2, tmp_path / "$RANK" / "recipe.json")
    assert code != 0
    assert f"different saved steps there, {STEPS}, 0 by rank" in errors


def test_a_run_with_loading_processes_that_is_told_to_end_saves_where_it_stands(runs: Path) -> None:
    """torchrun passes SIGTERM on to all processes of a rank's group, and those that load are not to die of it."""
    folder = runs / "told"
    recipe = write_recipe(folder)
    tree = json.loads(recipe.read_text())
    tree["run"] |= {"workers": 1, "save_every": 10**6}
    tree["train"]["samples"] *= 100
    recipe.write_text(json.dumps(tree))
    process = start_torchrun(2, recipe)
    while not (folder / "log.jsonl").is_file() or not (folder / "log.jsonl").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    said, errors = process.communicate(timeout=60)
    assert "stopped; the same command goes on from" in said, errors[-2000:]
    assert "loading process died" not in errors
    assert 5 <= checkpoint.load_state(folder / "state.safetensors")["step"] < 100 * STEPS


@pytest.mark.parametrize(("rank", "world"), [("abc", "1"), ("2", "2"), ("0", "-1"), ("", "")])
def test_an_environment_that_is_not_torchruns_is_refused(monkeypatch: pytest.MonkeyPatch, rank: str, world: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(UserError, match=f"RANK={rank} and WORLD_SIZE={world} in the environment"):
        torchrun_rank()


def test_an_environment_without_a_meeting_point_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(UserError, match="WORLD_SIZE=2 in the environment, but no MASTER_ADDR: start the command by torchrun"):
        start("cpu")
