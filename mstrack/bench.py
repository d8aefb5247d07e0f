"""`mst bench`: how fast a network tracks on this machine, by every backend, beside the plain loop of the published code."""

from collections.abc import Callable
from collections.abc import Sequence as List
from pathlib import Path
from typing import NamedTuple

import torch

from mstrack import checkpoint
from mstrack.backends import BACKENDS, PRECISIONS, open_backend
from mstrack.backends.onnxfile import has_cuda
from mstrack.errors import UserError
from mstrack.measuring import FileSpeed, Speed, best_batch, describe_machine, measure_batch, measure_files, measure_single
from mstrack.models import create_model
from mstrack.models.network import Network
from mstrack.plain import PlainTracker, plain_network
from mstrack.registry import MODELS, unknown

Progress = Callable[[int, int, str], None]
LASHER = 220_703
"""Frames of LasHeR's test split."""


class Bench(NamedTuple):
    """What was measured.

    Attributes:
        name: Of the network.
        machine: In words.
        single: Every backend with one sequence; the plain loop first, where there is a network to run in it.
        best: Every backend with the batch that gives most frames per second.
        files: From files to boxes, as the fastest of `best` does it, and by
        fastest: which.
        left_out: Backends that cannot be had here, and why.
    """

    name: str
    machine: str
    single: list[Speed]
    best: list[Speed]
    files: FileSpeed
    fastest: Speed
    left_out: dict[str, str]


def bench(
    source: Network | str | Path,
    backends: List[str] = (),
    precisions: List[str] = (),
    device: torch.device | str = "cpu",
    largest: int = 32,
    seconds: float = 1.0,
    progress: Progress | None = None,
) -> Bench:
    """Measure a network.

    Args:
        source: A checkpoint, a shipped weight, the name of a model (with random weights, which are as fast), an .onnx file,
            or a network.
        backends: Of `backends.BACKENDS`; none: those that make sense on this device.
        precisions: Of `backends.PRECISIONS`; none: all that a backend has.
        device: Where.
        largest: The largest batch that is tried.
        seconds: To spend on each measurement, more or less.
        progress: Called with (measurements done, all, what comes).

    Raises:
        UserError: Unknown names; or nothing of what was asked for can be had here.
    """
    for name in backends:
        if name not in BACKENDS:
            raise UserError(unknown("backend", name, BACKENDS))
    for name in precisions:
        if name not in PRECISIONS:
            raise UserError(unknown("precision", name, PRECISIONS))
    place, network = torch.device(device), _load(source)
    usual, left_out = (("onnx",), dict[str, str]()) if isinstance(network, Path) else _usual(place)
    said = bool(precisions and (backends or isinstance(network, Path)))
    pairs = [(name, precision) for name in backends or usual for precision in precisions or PRECISIONS]
    wanted = [pair for pair in pairs if said or pair != ("onnx", "bf16")]
    if backends:
        left_out = {}
    count, done = 2 * len(wanted) + 3, 0

    def advance(text: str) -> None:
        nonlocal done
        if progress is not None:
            progress(done, count, text)
        done += 1

    runners = {}
    for name, precision in wanted:
        advance(f"starting {name} {precision}")
        try:
            runner = open_backend(network, name, place, precision)
            if name == "compiled":
                measure_batch(runner, 1, 0)  # says whether there is a compiler
            runners[name, precision] = runner
        except UserError as error:
            left_out[f"{name} {precision}"] = str(error)
    if not runners:
        raise UserError("; ".join(left_out.values()) or "no backend was asked for.")
    plain = None if isinstance(network, Path) else PlainTracker(plain_network(network))
    advance("batch 1")
    single = measure_single(plain, runners, seconds)
    best = []
    for key, runner in runners.items():
        advance(f"batches of {key[0]} {key[1]}")
        best.append(best_batch(runner, largest, seconds))
    fastest = max(best, key=lambda speed: speed.fps)
    advance("files")
    files = measure_files(runners[fastest.backend, fastest.precision], fastest.batch, seconds)
    advance("done")
    called = source.name if isinstance(source, Network) else str(source)
    return Bench(called, describe_machine(place), single, best, files, fastest, left_out)


def _load(source: Network | str | Path) -> Network | Path:
    if isinstance(source, Network):
        return source
    if str(source).endswith(".onnx"):
        return Path(source)
    if str(source) in MODELS:
        torch.manual_seed(0)
        return create_model(str(source)).eval()
    return checkpoint.load(source)


def _usual(device: torch.device) -> tuple[tuple[str, ...], dict[str, str]]:
    """Backends that make sense on a device, and why others do not."""
    if device.type == "cpu":
        return ("eager", "onednn", "onnx"), {"compiled": "gains little on a CPU; --backend compiled measures it."}
    if has_cuda():
        return ("eager", "graph", "compiled", "onnx"), {}
    return ("eager", "graph", "compiled"), {"onnx": "there is no onnxruntime-gpu here; --backend onnx measures it on the CPU."}
