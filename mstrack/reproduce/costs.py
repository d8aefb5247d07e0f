"""What full-size networks cost on this machine, for the paper's Table 7: parameters, operations, frames per second."""

import inspect
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from mstrack.data import Sequence, load_sequences
from mstrack.distributed import choose_device
from mstrack.lockstep import follow
from mstrack.machine import usable_cores
from mstrack.models import create_model
from mstrack.models.cost import count_flops, count_parameters
from mstrack.models.network import Network
from mstrack.registry import resolve
from mstrack.reproduce.jobs import Site, network_of
from mstrack.reproduce.plan import PAPER
from mstrack.results import read_json, write_json
from mstrack.tracker import Clock

FILE = "costs.json"
SECONDS, FRAMES = 10.0, 40
"""Tracking is timed until either is reached, but over two frames at least."""


class Cost(NamedTuple):
    """What one network costs.

    Attributes:
        parameters: Without position embeddings, as Table 7 counts.
        trainable: What its own paper trains, with the parameters that nothing freezes.
        operations: Of one pair of crops, those with weights, all tokens to the end.
        eliminated: The same with candidate elimination; of those without it, the same number. Table 7 prints the first of
            most trackers, the second of SDSTrack.
        fps: Frames per second from file to box, one at a time, in fp32.
        network_fps: The same of the network alone.
        machine: Where.
    """

    parameters: int
    trainable: int
    operations: int
    eliminated: int
    fps: float
    network_fps: float
    machine: str


def measure_costs(
    site: Site, rows: list[str], folder: Path, device: str = "auto", progress: Callable[[int, int, str], None] | None = None
) -> dict[str, Cost]:
    """The costs of the networks of rows in the sizes of the paper, with random weights; what is known already is read.

    Args:
        site: Says which rows there are.
        rows: Their keys.
        folder: Where `costs.json` lies.
        device: Where they run.
        progress: Called with rows done, all, and a name.
    """
    place = choose_device(device)
    known = read_json(folder / FILE) or {}
    full = Site(site.plan, PAPER, site.out)
    found = {}
    for done, row in enumerate(rows):
        name, arguments = network_of(full, row)
        key = f"{name} {json.dumps(arguments)} on {describe_machine(place)}"
        if progress is not None:
            progress(done, len(rows), name)
        if key not in known:
            known[key] = _measure(create_model(name, **arguments).to(place), place)
            write_json(folder / FILE, known)
        found[row] = Cost(*known[key])
    return found


def describe_machine(device: torch.device) -> str:
    """The GPU's name, or the processor and its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {usable_cores()} cores, {torch.get_num_threads()} threads"


def _measure(network: Network, place: torch.device) -> Cost:
    parameters = count_parameters(network)
    fps, network_fps = _time(network)
    counted = parameters.total - parameters.positions
    operations, eliminated = (_count_operations(network, elimination) for elimination in (False, True))
    return Cost(counted, parameters.trainable, operations, eliminated, fps, network_fps, describe_machine(place))


def _count_operations(network: Network, elimination: bool) -> int:
    can = "elimination" in inspect.signature(resolve("models", network.name)).parameters
    with torch.device("meta"):
        return count_flops(
            create_model(network.name, **(network.arguments | ({"elimination": elimination} if can else {})))
        ).weights


def _time(network: Network) -> tuple[float, float]:
    """Frames per second of one sequence at a time, its first frame not counted."""
    sequence = load_sequences("synthetic", "test", modality="thermal", arguments={"sequences": 1, "frames": FRAMES})[0]
    _follow(network, sequence.cut(0, 2))
    seconds, clock = _follow(network, sequence.cut(0, 3))
    length = min(FRAMES, 1 + int(SECONDS / (seconds / 2)))
    if length > 3:
        seconds, clock = _follow(network, sequence.cut(0, length))
    return (max(length, 3) - 1) / seconds, clock.fps or 0.0


def _follow(network: Network, sequence: Sequence) -> tuple[float, Clock]:
    clock, started = Clock(), time.perf_counter()
    for _ in follow(network, [sequence], batch=1, clock=clock):
        pass
    return time.perf_counter() - started, clock
