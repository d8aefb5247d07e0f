"""The loop: exact resumption after any interruption, equal gradients however the batch is split, and no silent damage."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from devices import needs_gpu
from safetensors.torch import load_file
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mstrack import checkpoint
from mstrack.assembly import (
    batch_losses,
    build_model,
    build_optimizer,
    pair_dataset,
    prepare_blocks,
    read_sources,
    set_mode,
)
from mstrack.config import Config, load_config
from mstrack.data.sampling import Batch, PairDataset, load_batches
from mstrack.distributed import Place
from mstrack.errors import UserError
from mstrack.journal import TrainingError, Watch, read_curves
from mstrack.models import create_model
from mstrack.models.blocks import normalise
from mstrack.models.network import Network
from mstrack.recorded import RecordedPass
from mstrack.training import rate, record_passes, take_step, train
from mstrack.tuning import TunedAdamW
from mstrack.validation import validate

TESTS = Path(__file__).parent
SMALL = {"width": 32, "depth": 2, "heads": 2, "cross_layers": [1]}


def recipe(tmp_path: Path, **train_settings: Any) -> dict[str, Any]:
    source = {"name": "moving_squares:load", "root": str(tmp_path / "squares")}
    return {
        "model": {"name": "mst-tiny", "arguments": {**SMALL, "drop_path": 0.1}},
        "data": {
            "modality": "thermal",
            "train": [{**source, "split": "train"}],
            "val": [{**source, "split": "val"}],
            "min_frames": 5,
            "modality_dropout": 0.3,
        },
        "tuning": {"name": "mst", "parameters": {"head.*": 0, "position_*": 0, "*": 1}},
        "train": {
            "lr": 1e-3, "epochs": 2, "samples": 24, "batch": 4, "val_samples": 8, "val_clips": 2, "val_frames": 4,
            **train_settings,
        },
        "run": {
            "out": str(tmp_path / "run"), "workers": 0, "save_every": 1, "log_every": 3, "tensorboard": False, "device": "cpu",
        },
    }  # fmt: skip


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def command(tmp_path: Path, out: str, *extra: str) -> list[str]:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe(tmp_path)))
    return [sys.executable, "-m", "mstrack", "train", str(path), f"run.out={tmp_path / out}", *extra]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}


METHODS = {
    "full": [],
    "momentum": [],
    "mst": [],
    "mst by moment": ["tuning.arguments={by: moment, scope: network, order: inverse}"],
    "sparse": ["tuning.arguments={share: 0.3, batches: 2, of: mst}"],
    "ema": ["tuning.arguments={decay: 0.8}"],
    "fisher": ["tuning.arguments={strength: 30, batches: 2}"],
    "wise": ["tuning.arguments={alpha: [0, 0.5, 1], of: {name: ema, arguments: {of: srft}}}"],
}


@pytest.mark.parametrize("tuning", METHODS)
def test_an_interrupted_run_ends_bit_identical(tmp_path: Path, tuning: str) -> None:
    settings = [f"tuning.name={tuning.split()[0]}", *METHODS[tuning]]
    whole = train(recipe(tmp_path), [*settings, f"run.out={tmp_path / 'whole'}"])
    out, stops = tmp_path / "pieces", []
    for steps in (2, 3, 4, 100):
        calls = iter(range(1, 100))
        train(recipe(tmp_path), [*settings, f"run.out={out}"], interrupted=lambda last=steps, calls=calls: next(calls) == last)
        stops.append(checkpoint.load_state(out / "state.safetensors")["step"])
    assert stops == [2, 5, 9, 12]
    assert_same(weights(whole.parent), weights(out))
    assert [s for s, _ in read_curves(out, {"val/loss": "v"})["v"]] == [6, 12]


def test_killed_at_any_moment_and_started_again(tmp_path: Path) -> None:
    train(recipe(tmp_path), [f"run.out={tmp_path / 'whole'}"])
    out, kills = tmp_path / "killed", 0
    for delay in (0.0, 0.07, 0.3):
        process = subprocess.Popen(command(tmp_path, "killed"), env=environment(), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        before = (out / "state.safetensors").stat().st_mtime_ns if (out / "state.safetensors").exists() else 0
        while process.poll() is None and time.monotonic() < deadline:
            if (out / "state.safetensors").exists() and (out / "state.safetensors").stat().st_mtime_ns != before:
                time.sleep(delay)
                process.kill()
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
    subprocess.run(command(tmp_path, "killed"), env=environment(), check=True, capture_output=True)
    assert kills >= 1
    assert_same(weights(tmp_path / "whole"), weights(out))


def test_sigterm_saves_and_exits_0(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, "term", "train.epochs=500"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    state = tmp_path / "term" / "state.safetensors"
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "goes on from" in output
    assert checkpoint.load_state(state)["step"] >= 1


def test_accumulated_parts_are_the_whole_batch(tmp_path: Path) -> None:
    """Without focal normalisation over the batch the mean over parts is the mean over the batch."""
    settings = ["train.losses.focal=0", "train.epochs=1", "model.arguments.drop_path=0", "tuning.name=full"]
    whole = train(recipe(tmp_path), [*settings, f"run.out={tmp_path / 'one'}"])
    parts = train(recipe(tmp_path), [*settings, "train.accumulate=2", f"run.out={tmp_path / 'two'}"])
    a, b = weights(whole.parent), weights(parts.parent)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=2e-3)


def test_two_processes_measure_the_same_and_agree_on_what_trains(tmp_path: Path) -> None:
    settings = [
        "tuning.name=sparse",
        "tuning.arguments={share: 0.3, batches: 2}",
        "train.epochs=1",
        "model.arguments.drop_path=0",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29567"]
    line = command(tmp_path, "ddp", *settings)
    done = subprocess.run([*torchrun, *line[1:]], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    train(recipe(tmp_path), [*settings, "train.accumulate=2", f"run.out={tmp_path / 'one'}"], interrupted=lambda: True)
    masks = []
    for out in ("ddp", "one"):
        states = checkpoint.load_state(tmp_path / out / "state.safetensors")["optimizer"]["state"]
        masks.append(torch.cat([states[i]["mask"].flatten() for i in sorted(states)]))
    assert masks[0].mean() == pytest.approx(0.3, abs=0.01)
    assert (masks[0] == masks[1]).float().mean() > 0.999


@pytest.mark.parametrize("method", ["sparse", "fisher"])
def test_a_method_measures_its_training_data_once(tmp_path: Path, method: str) -> None:
    """What is kept is the mean squared gradient of the untrained network, computed here the slow way."""
    name = {"sparse": "mask", "fisher": "fisher"}[method]
    settings = [f"tuning.name={method}", "tuning.arguments={batches: 3}", "train.batch=4"]
    train(recipe(tmp_path), settings, interrupted=lambda: True)
    state = checkpoint.load_state(tmp_path / "run" / "state.safetensors")["optimizer"]
    names = [n for group in state["param_groups"] for n in group["param_names"]]
    kept = {n: state["state"][i][name] for i, n in enumerate(names)}

    config = load_config(recipe(tmp_path), settings)
    torch.manual_seed(config.train.seed)
    network = build_model(config).eval()
    pairs = pair_dataset(config, network, read_sources(config.data.train, config), 1_000_033, training=False)
    parameters = dict(network.named_parameters())
    sums = {n: torch.zeros_like(parameters[n], dtype=torch.float64) for n in names}
    for batch in load_batches(pairs, 0, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]], workers=0):
        network.zero_grad()
        batch_losses(network, batch, config, torch.device("cpu"))["total"].backward()
        for n in names:
            sums[n] += parameters[n].grad.double().square() if parameters[n].grad is not None else 0
    everything = torch.cat([s.flatten() for s in sums.values()])
    for n in names:
        if method == "fisher":
            torch.testing.assert_close(kept[n].double(), sums[n] / everything.mean(), rtol=1e-4, atol=1e-6)
        else:
            border = everything.sort(descending=True).values[round(0.2 * everything.numel()) - 1]
            assert ((kept[n] > 0) == (sums[n] >= border)).float().mean() > 0.999


def test_what_is_shipped_is_what_validation_saw_and_training_goes_on_from_its_own(tmp_path: Path) -> None:
    settings = ["tuning.name=ema", "tuning.arguments={decay: 0.9}"]
    shipped = weights(train(recipe(tmp_path), settings).parent)
    state = checkpoint.load_state(tmp_path / "run" / "state.safetensors")
    plain = train(recipe(tmp_path), ["tuning.name=full", f"run.out={tmp_path / 'plain'}"])
    assert_same(state["model"], weights(plain.parent))
    names = [n for group in state["optimizer"]["param_groups"] for n in group["param_names"]]
    for index, name in enumerate(names):
        assert torch.equal(shipped[name], state["optimizer"]["state"][index]["average"])
        assert not torch.equal(shipped[name], state["model"][name])


def test_validation_chooses_alpha_after_training(tmp_path: Path) -> None:
    alphas = [0.0, 0.25, 1.0]
    settings = ["tuning.name=wise", f"tuning.arguments={{alpha: {alphas}}}", "train.lr=0.05"]
    model = checkpoint.load(train(recipe(tmp_path), settings))
    state = checkpoint.load_state(tmp_path / "run" / "state.safetensors")
    config = load_config(recipe(tmp_path), settings)
    torch.manual_seed(config.train.seed)
    network = build_model(config)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    network.load_state_dict(state["model"])
    held_out, scores = read_sources(config.data.val, config), []
    for alpha in alphas:
        for n, p in network.named_parameters():
            p.data = before[n].lerp(state["model"][n], alpha)
        scores.append(validate(network, config, held_out, Place(0, 1, torch.device("cpu"))))
    best = max(range(3), key=lambda i: (scores[i]["SR"], -scores[i]["loss"]))
    assert model.provenance["choice"] == alphas[best]
    assert model.provenance["validation"]["SR"] == pytest.approx(scores[best]["SR"])
    for n, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[n].lerp(state["model"][n], alphas[best]), rtol=1e-6, atol=1e-7)


def test_clips_of_one_name_from_two_sources_are_scored_each_by_its_own_boxes(tmp_path: Path) -> None:
    config = load_config(recipe(tmp_path), ["train.val_samples=0"])
    ((source, sequences),) = read_sources(config.data.val, config)
    first, second = (replace(sequence, name="same") for sequence in sequences[:2])
    network, place = build_model(config), Place(0, 1, torch.device("cpu"))
    apart = [validate(network, config, [(source, [clip])], place)["SR"] for clip in (first, second)]
    assert apart[0] != pytest.approx(apart[1])
    together = validate(network, config, [(source, [first]), (source, [second])], place)["SR"]
    assert together == pytest.approx(sum(apart) / 2)


def test_a_run_that_fails_leaves_no_thread_behind(tmp_path: Path) -> None:
    def fail(done: int, total: int, text: str) -> None:
        raise OSError("the terminal is gone")

    before = set(threading.enumerate())
    with pytest.raises(OSError, match="terminal"):
        train(recipe(tmp_path), ["run.tensorboard=true"], progress=fail)
    assert list((tmp_path / "run/tensorboard").iterdir())
    assert set(threading.enumerate()) <= before


def test_frozen_parameters_and_their_batch_norms_stay(tmp_path: Path) -> None:
    config = load_config(recipe(tmp_path))
    torch.manual_seed(config.train.seed)
    before = build_model(config).state_dict()
    after = weights(train(config).parent)
    for name, value in before.items():
        moved = not torch.equal(value, after[name])
        assert moved == (not name.startswith(("head.", "position_"))), name


def test_a_loss_that_is_not_finite_reaches_neither_weights_nor_files(tmp_path: Path) -> None:
    poisoned = recipe(tmp_path)
    poisoned["train"]["losses"] = {"focal": 1e39}  # infinite in float32
    poisoned["tuning"]["parameters"] = {"*": 1}  # batch norms learn
    config = load_config(poisoned)
    network, optimizer, pairs, watch, place = begin(config, "cpu")
    before = {name: value.clone() for name, value in network.named_parameters()}
    take_step(network, optimizer, load_batches(pairs, 0, [[0, 1, 2, 3]], workers=0), watch, config, place, 0)
    assert_same(before, {name: value.detach() for name, value in network.named_parameters()})
    with pytest.raises(TrainingError, match=r"square\d"):
        watch.check()
    with pytest.raises(TrainingError, match=r"square\d"):
        train(config)
    assert not (config.run.out / "state.safetensors").exists(), "save_every is 1, and log_every 3"


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    train(recipe(tmp_path), interrupted=lambda: True)
    with pytest.raises(UserError, match=r"other settings in: train\.lr \([\d.]+ there, 0\.0001 now\)\. Name"):
        train(recipe(tmp_path), ["train.lr=1e-4"])


@pytest.mark.parametrize(
    ("patterns", "useless"),
    [
        ("{blokcs_rgb.*: 0, head.*: 0, '*': 1}", ["blokcs_rgb.*"]),
        ("{'*': 1, head.*: 0}", ["head.*"]),
        ("{head.*: 0, position_*: 0, temporal_*: 0, cross.*: 0.5, '*': 1}", []),
    ],
)
def test_patterns_that_decide_nothing_are_a_warning(tmp_path: Path, patterns: str, useless: list[str]) -> None:
    config = load_config(recipe(tmp_path), [f"tuning.parameters={patterns}"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build_optimizer(build_model(config), config)
    assert [str(w.message).partition(" decides")[0] for w in caught] == [f"tuning.parameters: '{name}'" for name in useless]


def test_what_a_run_started_from_is_recorded_and_must_stay(tmp_path: Path) -> None:
    file = tmp_path / "foundation.safetensors"
    overrides = [f"model.weights={file}"]
    checkpoint.save(file, create_model("ostrack-tiny", width=32, depth=2, heads=2), {"source": "OSTrack.pth", "sha256": "0123"})
    train(recipe(tmp_path), overrides, interrupted=lambda: True)
    made = checkpoint.load(train(recipe(tmp_path), overrides)).provenance
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    expected = {"weights": str(file), "sha256": digest, "source": "OSTrack.pth", "source_sha256": "0123"}
    assert made["started_from"] == expected
    assert (made["device"], made["processes"]) == ("cpu", 1)
    checkpoint.save(file, create_model("ostrack-tiny", width=32, depth=2, heads=2), {})
    with pytest.raises(UserError, match=r"other settings in: the content of model\.weights \(sha256 [0-9a-f]{8}\.\.\. there"):
        train(recipe(tmp_path), overrides)


def test_a_finished_run_returns_at_once(tmp_path: Path) -> None:
    path = train(recipe(tmp_path))
    stamp = path.stat().st_mtime_ns
    assert train(recipe(tmp_path)) == path
    assert path.stat().st_mtime_ns == stamp


def test_a_finished_run_that_lost_its_checkpoint_writes_it_again(tmp_path: Path) -> None:
    settings = ["tuning.name=wise", "tuning.arguments={alpha: [0, 0.5, 1]}"]
    path = train(recipe(tmp_path), settings)
    before = path.read_bytes()
    path.unlink()
    assert train(recipe(tmp_path), settings) == path
    assert path.read_bytes() == before


def test_a_second_training_in_the_folder_is_refused(tmp_path: Path) -> None:
    refused: list[str] = []

    def begin_another(done: int, total: int, text: str) -> None:
        with pytest.raises(UserError, match="another `mst train` is under way in") as found:
            train(recipe(tmp_path))
        refused.append(str(found.value))

    remains = tmp_path / "run" / ".state.0123.part.safetensors"
    remains.parent.mkdir()
    remains.write_bytes(b"what a killed training was writing")
    train(recipe(tmp_path), progress=begin_another)
    assert len(refused) >= 12
    assert not remains.exists()


def test_the_checkpoint_says_what_made_it(tmp_path: Path) -> None:
    model = checkpoint.load(train(recipe(tmp_path)))
    assert model.provenance["seed"] == 0
    assert model.provenance["data"] == ["moving_squares:load/train"]
    assert set(model.provenance["validation"]) == {"loss", "SR"}
    assert Config.model_validate(model.provenance["config"]).model.name == "mst-tiny"


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("train.batch=6", "multiple of processes"),
        ("train.samples=2", "less than one batch"),
        ("tuning.parameters={head.*: 0}", "blocks_rgb"),
        ("tuning.name=mts", "Did you mean 'mst'"),
        ("tuning.arguments={momentun: 1}", "momentun"),
        ("model.arguments={width: 30}", "width"),
        ("tuning={name: ema, arguments: {of: mts}}", "Did you mean 'mst'"),
        ("tuning={name: sparse, arguments: {share: 2}}", "share = 2"),
        ("model.arguments={widht: 30}", "Did you mean 'width'"),
        ("data.train.0.name=synthtic", "Did you mean 'synthetic'"),
        ("run.device=cdua", "unknown device"),
        ("run.device=meta", "device 'meta' is not one that mstrack runs on"),
    ],
)
def test_mistakes_in_a_recipe_are_named(tmp_path: Path, override: str, fragment: str) -> None:
    with pytest.raises(UserError, match=fragment):
        train(recipe(tmp_path), [override, "train.accumulate=4"] if "batch=6" in override else [override])


def test_a_choice_without_validation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"choose among 0.2, 0.8, and nothing is validated"):
        train(
            recipe(tmp_path),
            ["tuning={name: wise, arguments: {alpha: [0.2, 0.8]}}", "train.val_clips=0", "train.val_samples=0"],
        )


def test_rates_follow_their_schedule(tmp_path: Path) -> None:
    stepped = load_config(recipe(tmp_path), ["train.drop_epoch=2", "train.epochs=4", "train.warmup=5"])
    assert [rate(s, 10, stepped) for s in (0, 4, 5, 19, 20, 39)] == pytest.approx([0.2, 1, 1, 1, 0.1, 0.1])
    cosine = load_config(recipe(tmp_path), ["train.schedule=cosine", "train.epochs=4"])
    assert rate(0, 10, cosine) == 1
    assert rate(20, 10, cosine) == pytest.approx(0.5)
    assert rate(39, 10, cosine) < 0.01


def test_the_optimizer_trains_what_the_patterns_say(tmp_path: Path) -> None:
    config = load_config(recipe(tmp_path), ["tuning.parameters={head.*: 0, position_*: 0, cross.*: 0.5, '*': 1}"])
    network = build_model(config)
    optimizer = build_optimizer(network, config)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(network.named_parameters())
    assert rates[id(named["cross.0.attn.qkv.weight"])] == pytest.approx(5e-4)
    assert rates[id(named["embed_aux.weight"])] == pytest.approx(1e-3)
    assert not any(p.requires_grad for name, p in named.items() if name.startswith("head."))


class _Waiting(TorchFunctionMode):
    """Refuses to make tensors of numbers: on a GPU each is sent there while the host waits."""

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        made = (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, torch.Tensor.new_tensor)
        if function in made:
            raise AssertionError(f"{function.__name__} in a training step")
        return function(*args, **(kwargs or {}))


class _Copies(TorchDispatchMode):
    """Counts copies from the host to the device, and refuses those that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = function(*args, **kwargs)
        if function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default) and found.device.type == "meta":
            source = args[0] if function is torch.ops.aten._to_copy.default else args[1]
            if source.device.type == "cpu":
                self.count += 1
                assert kwargs.get("non_blocking") or len(args) > 2, f"the host waits for a copy of {tuple(source.shape)}"
        return found


def begin(config: Config, device: str) -> tuple[Network, TunedAdamW, PairDataset, Watch, Place]:
    """What a step takes, before the first one."""
    place = Place(0, 1, torch.device(device))
    network = build_model(config).to(place.device)
    optimizer = build_optimizer(network, config)
    prepare_blocks(network, config)
    set_mode(network)
    pairs = pair_dataset(config, network, read_sources(config.data.train, config), 0, training=True)
    return network, optimizer, pairs, Watch(place.device), place


@pytest.mark.parametrize("tuning", ["full", "momentum", "mst", "mst by moment", "ema"])
def test_a_step_waits_for_nothing(tmp_path: Path, tuning: str) -> None:
    """On the meta device there are no numbers: whatever reads one fails, and so does what would wait to send one."""
    settings = [f"tuning.name={tuning.split()[0]}", *METHODS[tuning], "train.accumulate=2"]
    config = load_config(recipe(tmp_path), settings)
    network, optimizer, pairs, watch, place = begin(config, "meta")
    normalise(torch.empty(1, 3, 1, 1, device="meta"))
    batches = list(load_batches(pairs, 0, [[0, 1], [2, 3], [4, 5], [6, 7]], workers=0))
    for step in range(2):
        with _Waiting(), _Copies() as copies:
            take_step(network, optimizer, iter(batches[2 * step : 2 * step + 2]), watch, config, place, step)
        assert copies.count >= 2 * 5
    with pytest.raises(RuntimeError, match="meta"):
        watch.read()


@needs_gpu
@pytest.mark.parametrize("graph", [False, True])
def test_a_step_on_a_gpu_waits_for_nothing(tmp_path: Path, graph: bool) -> None:
    config = load_config(recipe(tmp_path), [f"run.graph={graph}"])
    network, optimizer, pairs, watch, place = begin(config, "cuda")
    batch = next(iter(load_batches(pairs, 0, [[0, 1]], workers=0)))
    batch = batch._replace(**{name: part.pin_memory() for name, part in batch._asdict().items() if torch.is_tensor(part)})
    recorded = record_passes(network, config, place)
    try:
        for step in range(8):
            if step == 5:  # a graph has been recorded
                torch.cuda.set_sync_debug_mode("error")
            take_step(network, optimizer, iter([batch]), watch, config, place, step, recorded)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert math.isfinite(watch.read()["total"])


RECORDED = {
    "plain": [],
    "in parts": ["train.accumulate=2"],
    "with a head that trains": ["tuning.parameters={'*': 1}"],
    "computed twice, in bf16": ["train.precision=bf16", "run.checkpointing=true"],
}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("settings", RECORDED.values(), ids=RECORDED.keys())
def test_recorded_passes_train_the_same(tmp_path: Path, settings: list[str], device: str) -> None:
    ends = []
    for graph in (False, True):
        more = [f"run.graph={graph}", "model.arguments.drop_path=0.3", "train.lr=1e-3"]
        config = load_config(recipe(tmp_path), [*settings, *more])
        torch.manual_seed(0)
        network, optimizer, pairs, watch, place = begin(config, device)
        parts = iter(load_batches(pairs, 0, [[i, i + 1] for i in range(0, 32, 2)], workers=0))
        recorded = record_passes(network, config, place)
        for step in range(8):
            take_step(network, optimizer, parts, watch, config, place, step, recorded)
        ends.append((watch.read(), network.state_dict()))
    (terms, plain), (others, ours) = ends
    assert terms == pytest.approx(others, rel=1e-4)
    close = {"rtol": 0, "atol": 0} if device == "cpu" else {"rtol": 1e-3, "atol": 1e-4}
    for name, weight in plain.items():
        torch.testing.assert_close(ours[name], weight, **close, msg=lambda text, n=name: f"{n}: {text}")
    torch.manual_seed(0)
    started = build_model(config).state_dict()
    assert max(float((ours[name].cpu() - weight).abs().max()) for name, weight in started.items()) > 1e-4


@needs_gpu
def test_a_pass_that_waits_cannot_be_recorded() -> None:
    weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
    batch = Batch(*(torch.zeros(1, pin_memory=True) for _ in range(5)), names=("one",))

    def backward(batch: Batch) -> dict[str, torch.Tensor]:
        total = weight.sum() * batch.boxes.sum().item()
        total.backward()
        return {"total": total.detach()}

    recorded = RecordedPass(backward, [weight], torch.device("cuda"))
    with pytest.raises(UserError, match=r"cannot be recorded \(.*captur.*run\.graph=true"):
        for _ in range(5):
            recorded(batch)


def test_no_derivative_fetches_a_number(tmp_path: Path) -> None:
    """As above, for what waits only where there are numbers: the derivative of `prod` counts zeros in them."""
    config = load_config(recipe(tmp_path))
    network = build_model(config)
    build_optimizer(network, config)
    set_mode(network)
    pairs = pair_dataset(config, network, read_sources(config.data.train, config), 0, training=True)
    batch = pairs[0, [0, 1]]
    with torch.profiler.profile() as profile:
        batch_losses(network, batch, config, torch.device("cpu"))["total"].backward()
    names = {event.key for event in profile.key_averages()}
    assert "aten::mul" in names
    assert not names & {"aten::item", "aten::_local_scalar_dense", "aten::nonzero"}


def test_computing_blocks_again_changes_nothing_but_memory(tmp_path: Path) -> None:
    plain = train(recipe(tmp_path), [f"run.out={tmp_path / 'plain'}"])
    again = train(recipe(tmp_path), [f"run.out={tmp_path / 'again'}", "run.checkpointing=true"])
    assert_same(weights(plain.parent), weights(again.parent))
    kept = []
    for setting in ("false", "true"):
        config = load_config(recipe(tmp_path), [f"run.checkpointing={setting}"])
        network = build_model(config)
        prepare_blocks(network, config)
        storages: dict[int, int] = {}

        def keep(tensor: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storages[tensor.data_ptr()] = tensor.nbytes
            return tensor

        inputs = [torch.zeros(shape.shape) for shape in network.inputs(4)]
        parameters = sum(p.nbytes for p in network.parameters())
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found = network(*inputs)
        kept.append(sum(storages.values()) - parameters)
        assert found.score.requires_grad
    assert kept[1] < 0.6 * kept[0]


@pytest.fixture
def group() -> Iterator[None]:
    """A group of one process, as torchrun would make it."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", ["alone", "joined"])
def test_compiled_blocks_compute_the_same_in_few_graphs(tmp_path: Path, ranks: str, group: None) -> None:
    config = load_config(recipe(tmp_path), ["model.arguments.depth=6", "model.arguments.cross_layers=[1, 3]"])
    compiled = load_config(recipe(tmp_path), ["run.compile=true"])
    plain, network = build_model(config), build_model(config)
    network.load_state_dict(plain.state_dict())
    counter = CompileCounterWithBackend("aot_eager")
    prepare_blocks(network, compiled, counter)
    torch.manual_seed(1)
    inputs = [torch.randn(shape.shape) for shape in network.inputs(2)]
    results = []
    wrapped = DistributedDataParallel(network, bucket_cap_mb=0.01) if ranks == "joined" else network  # many small buckets
    for one in (plain, wrapped):
        torch.manual_seed(2)
        prediction = one(*inputs)
        sum(part.square().sum() for part in prediction).backward()
        results.append(prediction)
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)
    for a, b in zip(plain.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    assert 1 <= counter.frame_count <= 4
    graphs = counter.frame_count
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        network.eval()(*(torch.cat([part] * 3) for part in inputs))
    assert counter.frame_count == graphs
