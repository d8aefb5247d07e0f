"""How training scales over processes: a model, checked by runs of 1, 2 and 4 processes here, and what it says of many GPUs.

    python benchmarks/scaling.py [--model mst-tiny --batch 8]      # the check, on the CPU
    python benchmarks/scaling.py --predict [--rate 450 --network 320]

The model. A step of P processes with b samples each takes

    step(P) = work(b) + max(traffic - overlap x backward, traffic / buckets)
    traffic = 2 (P - 1) / P x gradient bytes / bandwidth + 2 x buckets x hops x latency

`work` is the step of one process, `backward` two thirds of it. Buckets are those of DistributedDataParallel, 25 MB of
gradients each: all but the last can travel while the backward pass goes on. On a CPU nothing overlaps when all cores compute
already, and gloo needs the same cores: overlap is 0. So it is with run.graph=true, where gradients leave after the pass.

The check. `mst train` runs in 1, 2 and 4 processes of one thread each, in turns; `work` comes from as many processes that
train at the same time, each for itself, and so wait for the same cores; the bandwidth from all-reduces of as many bytes alone.
"""

import argparse
import multiprocessing
import os
import pickle
import socket
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from dataloader import make_sequence
from training import PICTURES, EnoughError, Turns, make_config

from mstrack import distributed
from mstrack.assembly import build_model, build_optimizer
from mstrack.config import Config
from mstrack.training import train

WORLDS = (1, 2, 4)
BUCKET = 25 * 2**20
"""Bytes of gradients that DistributedDataParallel sends together."""


# ---------------------------------------------------------------- the model
class Link(NamedTuple):
    """What gradients travel on."""

    bandwidth: float
    """Bytes per second, of a ring over all processes."""
    latency: float = 0.0
    """Seconds of a hop."""
    overlap: float = 1.0
    """Share of the backward pass that they can travel in."""


def time_traffic(world: int, size: float, link: Link) -> float:
    """Seconds that `size` bytes of gradients travel among `world` processes."""
    buckets = max(1.0, size / BUCKET)
    hops = (world - 1).bit_length()
    return 2 * (world - 1) / world * size / link.bandwidth + 2 * buckets * hops * link.latency


def time_step(world: int, work: float, size: float, link: Link) -> float:
    """Seconds of a step of `world` processes, see above."""
    if world == 1:
        return work
    traffic = time_traffic(world, size, link)
    hidden = link.overlap * 2 / 3 * work
    return work + max(traffic - hidden, traffic / max(1.0, size / BUCKET))


# ---------------------------------------------------------------- the check
def work_in_rank(connection: Connection, rank: int, world: int, port: int, config: Config, size: int) -> None:
    torch.set_num_threads(1)
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in where.items()})
    connection.send(_time_all_reduce(size) if world > 1 else 0.0)
    turns = Turns(connection, cuda=False)
    try:
        turns.wait()
        train(config, progress=turns.step_taken)
    except EnoughError:
        pass


def _time_all_reduce(size: int) -> float:
    """Seconds of an all-reduce of so many bytes, in buckets."""
    distributed.start("cpu")
    parts = torch.zeros(size // 4).split(BUCKET // 4)
    times = []
    for _ in range(6):
        dist.barrier()
        begin = time.perf_counter()
        for work in [dist.all_reduce(part, async_op=True) for part in parts]:
            assert work is not None
            work.wait()
        times.append(time.perf_counter() - begin)
    distributed.stop()
    return statistics.median(times[1:])


class World:
    """Processes that train together, when they are asked to."""

    def __init__(self, size: int, config: Config, gradients: int) -> None:
        context = multiprocessing.get_context("spawn")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.connections, self.processes = [], []
        for rank in range(size):
            connection, other = context.Pipe()
            process = context.Process(target=work_in_rank, args=(other, rank, size, port, config, gradients))
            process.start()
            other.close()
            self.connections.append(connection)
            self.processes.append(process)
        self.all_reduce = max(connection.recv() for connection in self.connections)

    def begin(self, steps: int) -> None:
        for connection in self.connections:
            connection.send(steps)

    def end(self) -> float:
        """Seconds of what was begun, of the slowest."""
        return max(connection.recv().wall for connection in self.connections)

    def stop(self) -> None:
        self.begin(0)
        for process in self.processes:
            process.join()


def take(worlds: list[World], steps: int) -> float:
    """Seconds of a step, of the slowest of some worlds that take steps at the same time."""
    for world in worlds:
        world.begin(steps)
    return max(world.end() for world in worlds) / steps


def _elsewhere(config: Config, out: Path) -> Config:
    return config.model_copy(update={"run": config.run.model_copy(update={"out": out})})


def check(chosen: argparse.Namespace) -> None:
    """Measured steps of 1, 2 and 4 processes beside those of the model."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sequences.pickle").write_bytes(pickle.dumps([make_sequence(folder, PICTURES, 0)]))
        options = argparse.Namespace(model=chosen.model, arguments={}, device="cpu", workers=0)
        configs = {}
        for world in WORLDS:
            options.batch = world * chosen.batch
            configs[world] = make_config(options, folder, [f"run.out={folder / str(world)}"])
        network = build_model(configs[1])
        build_optimizer(network, configs[1])
        gradients = sum(p.nbytes for p in network.parameters() if p.requires_grad)
        alone = [World(1, _elsewhere(configs[1], folder / f"alone{i}"), gradients) for i in range(max(WORLDS))]
        together = {world: World(world, configs[world], gradients) for world in WORLDS if world > 1}
        together[1] = alone[0]
        take([*alone, *(together[world] for world in WORLDS if world > 1)], 2)
        steps: dict[int, list[float]] = {world: [] for world in WORLDS}
        works: dict[int, list[float]] = {world: [] for world in WORLDS}
        for _ in range(chosen.rounds):
            for world in WORLDS:
                steps[world].append(take([together[world]], chosen.steps))
                works[world].append(take(alone[:world], chosen.steps))
        for processes in [*alone, *(together[world] for world in WORLDS if world > 1)]:
            processes.stop()

    print(f"{chosen.model}, {chosen.batch} samples per process, {gradients / 1e6:.1f} MB of gradients, {cores} cores, gloo\n")
    print("| processes | each for itself, ms | all-reduce, ms | model, ms | measured, ms | model / measured | samples/s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for world in WORLDS:
        step, work, traffic = statistics.median(steps[world]), statistics.median(works[world]), together[world].all_reduce
        link = Link(2 * (world - 1) / world * gradients / traffic if traffic else 1.0, overlap=0.0)
        said = time_step(world, work, gradients, link)
        cells: list[Any] = [world, *(f"{1e3 * seconds:.1f}" for seconds in (work, traffic, said, step)), f"{said / step:.2f}"]
        cells.append(f"{world * chosen.batch / step:.1f}")
        print(f"| {' | '.join(map(str, cells))} |")


# ---------------------------------------------------------------- many GPUs
def predict(chosen: argparse.Namespace) -> None:
    """What the model says of 1, 8, 64 and 512 GPUs."""
    size, work = 4e6 * chosen.parameters, chosen.batch / chosen.rate
    print(
        f"{chosen.rate:g} samples/s on one GPU, {chosen.batch} samples per GPU, {size / 1e9:.2f} GB of gradients; in a node"
        f" {chosen.node:g} GB/s, between nodes {chosen.network:g} GB/s per node; {chosen.milliseconds:g} ms of CPU and"
        f" {chosen.kilobytes:g} kB in 4 files per sample\n"
    )
    print("| GPUs | batch | step, ms | efficiency | samples/s | loader cores / node | reads/s, all | GB/s, all |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for gpus in (1, 8, 64, 512):
        nodes = max(1, gpus // 8)
        inside = Link(1e9 * chosen.node, 5e-6, chosen.overlap)
        # Between nodes as many rings as network cards: the gradients leave every node once and come back once.
        link = inside if nodes == 1 else Link(1e9 * min(chosen.node, chosen.network), 1e-5, chosen.overlap)
        step = time_step(gpus, work, size, link)
        rate = gpus * chosen.batch / step
        cells = [str(gpus), str(gpus * chosen.batch), f"{1e3 * step:.1f}", f"{100 * work / step:.0f} %", f"{rate:,.0f}"]
        cells += [f"{rate / nodes * chosen.milliseconds / 1e3:.1f}", f"{4 * rate:,.0f}", f"{rate * chosen.kilobytes / 1e6:.2f}"]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mst-tiny", help="of the check")
    parser.add_argument("--batch", type=int, help="samples per process: 8 in the check, 24 in a prediction")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="in a turn")
    parser.add_argument("--predict", action="store_true", help="what the model says of many GPUs, without a check")
    parser.add_argument(
        "--rate", type=float, default=450, help="samples/s of one GPU; the default is an H100's, see RESULTS.md"
    )
    parser.add_argument(
        "--overlap", type=float, default=0.0, help="of traffic and backward pass: 0 with run.graph=true, else 1"
    )
    parser.add_argument("--parameters", type=float, default=199.6, help="million parameters that train")
    parser.add_argument("--node", type=float, default=300, help="GB/s of an all-reduce inside a node")
    parser.add_argument("--network", type=float, default=320, help="GB/s out of a node, all its cards together")
    parser.add_argument("--milliseconds", type=float, default=4.7, help="of CPU to load a sample")
    parser.add_argument("--kilobytes", type=float, default=276, help="of files of a sample")
    chosen = parser.parse_args()
    chosen.batch = chosen.batch or (24 if chosen.predict else 8)
    (predict if chosen.predict else check)(chosen)


if __name__ == "__main__":
    main()
