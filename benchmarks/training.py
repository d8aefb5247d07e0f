"""Samples per second and peak memory of `mst train`, beside a plain loop over the same network and batches.

    python benchmarks/training.py [--model mst-b256 --batch 4] [--device cuda --batch 24 --compile]

The plain loop is eager float32 with the softmax of attention written out (`mstrack.plain`), `torch.optim.AdamW`, and a loss
that is fetched in every step. It stays alive beside each way of ours in turn, and both take steps alternately, so that
whatever else the machine does meets both alike: ratios are of neighbouring turns. "From memory" takes the steps of `mst
train` on one batch over and over: what `mst train` loses against it is lost to loading. Pictures are made on the spot, as in
`dataloader.py`.
"""

import argparse
import itertools
import multiprocessing
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from dataloader import Case, make_sequence

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
from mstrack.data.sampling import Batch, PairDataset, batches_of, load_keys
from mstrack.data.sequence import Sequence
from mstrack.distributed import Place, choose_device
from mstrack.journal import Watch
from mstrack.models.network import Network
from mstrack.plain import plain_network
from mstrack.training import record_passes, take_step, train

PICTURES = Case("thermal", 630, 480, 60)
PLAIN = "plain loop, fp32"
WAYS: dict[str, list[str]] = {
    "mst train, fp32": [],
    "mst train, bf16": ["train.precision=bf16"],
    "mst train, bf16, checkpointing": ["train.precision=bf16", "run.checkpointing=true"],
    "mst train, bf16, compiled": ["train.precision=bf16", "run.compile=true"],
    "mst train, bf16, graph": ["train.precision=bf16", "run.graph=true"],
    "mst train, bf16, compiled, graph": ["train.precision=bf16", "run.compile=true", "run.graph=true"],
    "bf16, from memory": ["train.precision=bf16"],
    "bf16, compiled, graph, from memory": ["train.precision=bf16", "run.compile=true", "run.graph=true"],
}


class EnoughError(Exception):
    """All turns are taken."""


class Turn(NamedTuple):
    """What a step costs, the mean over some."""

    wall: float
    cpu: float
    peak: float
    """Bytes: on a GPU allocated; on a CPU resident, beyond what importing takes."""


# ---------------------------------------------------------------- what is trained
def load(root: Path, split: str) -> list[Sequence]:
    """The data set of this benchmark, made by `main`."""
    found: list[Sequence] = pickle.loads((Path(root) / "sequences.pickle").read_bytes())
    return found


def make_config(chosen: argparse.Namespace, folder: Path, settings: list[str]) -> Config:
    tree = {
        "model": {"name": chosen.model, "arguments": {"drop_path": 0.1, **chosen.arguments}},
        "data": {"modality": "thermal", "train": [{"name": "training:load", "split": "train", "root": str(folder)}]},
        "tuning": {"name": "mst", "parameters": {"head.*": 0, "position_*": 0, "*": 1}},
        "train": {"lr": 1e-6, "epochs": 1, "samples": 10_000 * chosen.batch, "batch": chosen.batch},
        "run": {
            "device": chosen.device,
            "workers": chosen.workers,
            "save_every": 1_000_000,
            "tensorboard": False,
        },
    }
    return load_config(tree, settings)


def make_pairs(config: Config, network: Any) -> PairDataset:
    return pair_dataset(config, network, read_sources(config.data.train, config), 0, training=True)


def read_batches(config: Config, network: Any, cuda: bool) -> Iterator[Batch]:
    keys = [(0, batch) for batch in batches_of(config.train.samples, config.train.batch)]
    return load_keys(make_pairs(config, network), keys, config.run.workers, pin=cuda)


def prepare_plain_step(network: Network, config: Config, device: torch.device) -> Callable[[Batch], None]:
    """A step of the loop that ours is measured against."""
    build_optimizer(network, config)  # freezes what is frozen
    model = plain_network(network)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.train.lr, weight_decay=config.train.weight_decay)
    set_mode(model)

    def step(batch: Batch) -> None:
        loss = batch_losses(model, batch, config, device)["total"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, config.train.clip)
        loss.item()
        optimizer.step()
        optimizer.zero_grad()

    return step


def prepare_memory_step(network: Network, config: Config, device: torch.device) -> Callable[[Batch], None]:
    """A step of `mst train`."""
    optimizer = build_optimizer(network, config)
    prepare_blocks(network, config)
    set_mode(network)
    watch, place, steps = Watch(device), Place(0, 1, device), itertools.count()
    recorded = record_passes(network, config, place)

    def step(batch: Batch) -> None:
        number = next(steps)
        take_step(network, optimizer, iter([batch]), watch, config, place, number, recorded)
        if (number + 1) % config.run.log_every == 0:
            watch.read()

    return step


def train_plainly(config: Config, step_taken: Callable[[], None]) -> None:
    """Batches from files, by the plain loop."""
    device = choose_device(config.run.device)
    network = build_model(config).to(device)
    batches, step = read_batches(config, network, device.type == "cuda"), prepare_plain_step(network, config, device)
    del network  # the plain one has weights of its own
    for batch in batches:
        step(batch)
        step_taken()


def train_from_memory(config: Config, step_taken: Callable[[], None]) -> None:
    """The steps of `mst train`, on one batch."""
    device = choose_device(config.run.device)
    network = build_model(config).to(device)
    step, batch = prepare_memory_step(network, config, device), next(read_batches(config, network, device.type == "cuda"))
    while True:
        step(batch)
        step_taken()


# ---------------------------------------------------------------- taking turns
class Turns:
    """Lets a training take steps when it is asked to, in a process of its own."""

    def __init__(self, connection: Connection, cuda: bool) -> None:
        self.connection, self.cuda, self.left = connection, cuda, 0
        self.resident = resident_bytes("VmRSS")
        self.begun: tuple[float, float] = 0.0, 0.0

    def step_taken(self, *_: Any) -> None:
        """Called after each step: at the end of a turn say what it cost, and wait for the next one."""
        self.left -= 1
        if self.left <= 0:
            if self.cuda:
                torch.cuda.synchronize()
            now = time.perf_counter(), time.process_time()
            peak = float(torch.cuda.max_memory_allocated()) if self.cuda else resident_bytes("VmHWM") - self.resident
            self.connection.send(Turn(now[0] - self.begun[0], now[1] - self.begun[1], peak))
            self.wait()

    def wait(self) -> None:
        self.left = self.connection.recv()
        if not self.left:
            raise EnoughError
        self.begun = time.perf_counter(), time.process_time()


def resident_bytes(entry: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(f"{entry}:"))


def work(connection: Connection, name: str, config: Config, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    turns = Turns(connection, choose_device(config.run.device).type == "cuda")
    try:
        turns.wait()
        if name == PLAIN:
            train_plainly(config, turns.step_taken)
        elif name.endswith("from memory"):
            train_from_memory(config, turns.step_taken)
        else:
            train(config, progress=turns.step_taken)
    except EnoughError:
        pass


class Worker:
    """A process that trains in one way; `ready` before the first turn."""

    def __init__(self, name: str, config: Config, chosen: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, name, config, chosen.threads))
        self.process.start()
        other.close()
        self.connection.send(chosen.warmup)

    def ready(self) -> bool:
        """Wait until it is; whether it lives."""
        try:
            self.connection.recv()
        except EOFError:
            return False
        return True

    def take(self, steps: int) -> Turn:
        self.connection.send(steps)
        found: Turn = self.connection.recv()
        return Turn(found.wall / steps, found.cpu / steps, found.peak)

    def stop(self) -> None:
        self.connection.send(0)
        self.process.join()


def compare(chosen: argparse.Namespace, folder: Path) -> list[tuple[str, list[Turn], list[Turn]]]:
    """For each way its turns, and those of the plain loop between them."""
    cuda = choose_device(chosen.device).type == "cuda"
    names = [name for name in WAYS if (chosen.compile or "compiled" not in name) and (cuda or "graph" not in name)]

    def start(name: str, settings: list[str]) -> Worker:
        return Worker(name, make_config(chosen, folder, [*settings, f"run.out={folder / name.replace(' ', '-')}"]), chosen)

    plain, found = start(PLAIN, []), []
    waiting = {name: start(name, WAYS[name]) for name in chosen.only or names} if chosen.together else {}
    if not plain.ready():
        raise SystemExit("The plain loop ended before its first turn.")
    living = {name: worker.ready() for name, worker in waiting.items()}  # all, before the first turn
    for name in chosen.only or names:
        worker = waiting.pop(name, None) or start(name, WAYS[name])
        if not (living[name] if name in living else worker.ready()):
            print(f"{name}: it ended before its first turn.")
            continue
        turns = [(worker.take(chosen.steps), plain.take(chosen.plain_steps)) for _ in range(chosen.rounds)]
        worker.stop()
        found.append((name, [a for a, _ in turns], [b for _, b in turns]))
    plain.stop()
    return found


def milliseconds_per_sample(config: Config) -> float:
    """CPU time of a training pair, from these files."""
    with torch.device("meta"):
        network = build_model(config)
    pairs = make_pairs(config, network)
    pairs.sample(0, 0)
    begin = time.process_time()
    for index in range(30):
        pairs.sample(1, index)
    return 1e3 * (time.process_time() - begin) / 30


# ---------------------------------------------------------------- the table
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mst-b256")
    parser.add_argument("--arguments", type=eval, default={}, help="of the model, for example dict(depth=4)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, help="in a turn: 1 on a CPU; 120 on a GPU, more than are read ahead")
    parser.add_argument("--plain-steps", type=int, help="of the plain loop: 1 on a CPU, 10 on a GPU")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each way")
    parser.add_argument("--warmup", type=int, help="steps before the first turn: 1 on a CPU, 20 on a GPU")
    parser.add_argument("--workers", type=int, help="loading processes: 0 on a CPU, all cores but 2 on a GPU")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--compile", action="store_true", help="also with run.compile=true")
    parser.add_argument("--together", action="store_true", help="start all ways at once: less waiting, memory for all")
    parser.add_argument("--only", nargs="*", choices=list(WAYS))
    chosen = parser.parse_args()
    cuda = choose_device(chosen.device).type == "cuda"
    chosen.steps = chosen.steps or (120 if cuda else 1)
    chosen.plain_steps = chosen.plain_steps or (10 if cuda else 1)
    chosen.warmup = chosen.warmup or (20 if cuda else 1)
    chosen.workers = (max(1, chosen.threads - 2) if cuda else 0) if chosen.workers is None else chosen.workers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [make_sequence(folder, PICTURES, seed) for seed in range(2)]
        (folder / "sequences.pickle").write_bytes(pickle.dumps(made))
        cost = milliseconds_per_sample(make_config(chosen, folder, []))
        found = compare(chosen, folder)

    where = torch.cuda.get_device_name() if cuda else f"{chosen.threads} CPU threads"
    heads = ["", "samples/s", "plain / this, time", "plain / this, CPU time", "peak memory, GB", "this / plain, memory"]
    print(f"{chosen.model}, batch {chosen.batch}, {where}, torch {torch.__version__}\n")
    print(f"| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}")
    everything = [turn for *_, turns in found for turn in turns]
    rows = [(PLAIN, everything, everything), *found]
    for title, turns, beside in rows:
        rate = chosen.batch / statistics.median(turn.wall for turn in turns)
        ratios = [
            statistics.median(b.wall / a.wall for a, b in zip(turns, beside, strict=True)),
            statistics.median(b.cpu / a.cpu for a, b in zip(turns, beside, strict=True)),
        ]
        peak, reference = (max(turn.peak for turn in some) for some in (turns, everything))
        cells = [f"{rate:.3g}", *(f"{ratio:.2f}" for ratio in ratios), f"{peak / 1e9:.2f}", f"{peak / reference:.2f}"]
        print(f"| {title} | {' | '.join(cells)} |")
    best = max(chosen.batch / statistics.median(turn.wall for turn in turns) for _, turns, _ in found)
    print(
        f"\nA pair of samples' crops costs {cost:.1f} ms of CPU to load here, so {best:.3g} samples/s take"
        f" {best * cost / 1e3:.2f} cores."
    )


if __name__ == "__main__":
    main()
