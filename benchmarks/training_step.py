"""A training step on one batch in memory: the host's launches and the device's work, in the ways that `mst train` has.

    python benchmarks/training_step.py [--device cuda --model mst-b256 --batch 24]

The plain loop and then one way after the other, in one process and without loading (for that see `training.py`): on a GPU
about two minutes, most of them compiling. "Launches" is what the host needs for a step while nobody waits for the device;
"busy" the time of the device's kernels, by torch's profiler.
"""

import argparse
import gc
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from dataloader import make_sequence
from torch.profiler import ProfilerActivity, profile
from training import PICTURES, PLAIN, make_config, prepare_memory_step, prepare_plain_step, read_batches

from mstrack.assembly import build_model
from mstrack.config import Config
from mstrack.distributed import choose_device
from mstrack.measuring import describe_machine

WAYS: dict[str, list[str]] = {
    "bf16": [],
    "bf16, graph": ["run.graph=true"],
    "bf16, compiled": ["run.compile=true"],
    "bf16, compiled, graph": ["run.compile=true", "run.graph=true"],
}


class Step(NamedTuple):
    """Seconds of a step, back to back; of its launches; of the device's work; and the most bytes that were allocated."""

    wall: float
    launches: float
    busy: float
    peak: float


def measure(step: Callable[[], Any], steps: int, cuda: bool) -> Step:
    synchronise = torch.cuda.synchronize if cuda else (lambda: None)
    for _ in range(6):  # a graph is recorded after three
        step()
    synchronise()
    launches = []
    for _ in range(steps):
        begun = time.perf_counter()
        step()
        launches.append(time.perf_counter() - begun)
        synchronise()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    synchronise()
    wall = (time.perf_counter() - begun) / steps
    busy = busy_seconds(step) if cuda else wall
    return Step(wall, statistics.median(launches), busy, torch.cuda.max_memory_allocated() if cuda else 0)


def busy_seconds(step: Callable[[], Any], steps: int = 3) -> float:
    """Of all kernels and copies on the device."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    events = [event for event in recorded.events() or () if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(event.device_time for event in events if not event.name.startswith("Optimizer.")) / steps / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mst-b256")
    parser.add_argument("--arguments", type=eval, default={}, help="of the model, for example dict(depth=4)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", nargs="*", choices=[PLAIN, *WAYS], default=[PLAIN, *WAYS])
    chosen = parser.parse_args()
    chosen.workers = 0
    device = choose_device(chosen.device)
    cuda = device.type == "cuda"
    print(f"{chosen.model}, batch {chosen.batch}, {describe_machine(device)}\n")
    heads = ["", "ms per step", "samples/s", "plain / this", "launches, ms", "busy, ms", "peak memory, GB"]
    print("|", " | ".join(heads), "|\n" + "|---" * len(heads) + "|")
    with tempfile.TemporaryDirectory() as name:
        folder, plain = Path(name), None
        (folder / "sequences.pickle").write_bytes(pickle.dumps([make_sequence(folder, PICTURES, 0)]))
        for title in chosen.only:
            precision = "fp32" if title == PLAIN else "bf16"
            config = make_config(chosen, folder, [f"train.precision={precision}", *WAYS.get(title, [])])
            found = measure(prepare(title, config, device), chosen.steps, cuda)
            plain = found if title == PLAIN else plain
            ratio = f"{plain.wall / found.wall:.2f}" if plain else ""
            cells = [f"{1e3 * found.wall:.1f}", f"{chosen.batch / found.wall:.3g}", ratio]
            launches = "" if title == PLAIN else f"{1e3 * found.launches:.1f}"  # it waits for its loss
            cells += [launches, f"{1e3 * found.busy:.1f}", f"{found.peak / 1e9:.2f}"]
            print(f"| {title} | {' | '.join(cells)} |", flush=True)
            gc.collect()
            if cuda:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()


def prepare(title: str, config: Config, device: torch.device) -> Callable[[], None]:
    """The step of a way, on a batch that is in memory already."""
    torch.manual_seed(0)
    network = build_model(config).to(device)
    batch = next(read_batches(config, network, device.type == "cuda"))
    make = prepare_plain_step if title == PLAIN else prepare_memory_step
    step = make(network, config, device)
    return lambda: step(batch)


if __name__ == "__main__":
    main()
