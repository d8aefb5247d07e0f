"""How fast tracking is, and that fast is still right: the tables of RESULTS.md, section Tracking, as Markdown.

    python benchmarks/tracking.py [--models mst-b256 mst-tiny] [--device cuda] [--only single lockstep files exact export]

Needs the extra `onnx`; the golden tracking run is looked for in `--golden` (default ../shared/golden), its column is empty
where it is not. On two quiet cores: about ten minutes, most of them for mst-b256 and its export.
"""

import argparse
import datetime
import gzip
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mstrack import checkpoint, create_model
from mstrack.backends import Backend, open_backend
from mstrack.bench import LASHER, WORTH, Speed, describe_machine, measure_batch, measure_files, measure_single
from mstrack.cli_speed import duration
from mstrack.data import load_sequences
from mstrack.data.sequence import Frame, Sequence
from mstrack.errors import UserError
from mstrack.export import export
from mstrack.metrics import ope
from mstrack.models.network import Network
from mstrack.plain import PlainTracker, plain_network
from mstrack.tracker import Tracker, follow

TINY = "mst-tiny-thermal"
GOLDEN_FRAMES = 10
SAME = 0.01
"""Pixels within which two boxes are the same."""


def load(name: str) -> Network:
    torch.manual_seed(0)
    return checkpoint.load(TINY) if name == "mst-tiny" else create_model(name).eval()


def variants(device: torch.device) -> list[tuple[str, str]]:
    names = ("eager", "graph", "compiled") if device.type == "cuda" else ("eager", "onednn", "onnx")
    return [(name, precision) for precision in ("fp32", "bf16") for name in names if (name, precision) != ("onnx", "bf16")]


def table(headers: list[str], rows: list[list[str]]) -> None:
    print("|", " | ".join(headers), "|\n|" + "---|" * len(headers))
    for row in rows:
        print("|", " | ".join(row), "|")
    print()


# ---------------------------------------------------------------- one sequence, from crop to box
def single(models: list[str], device: torch.device, rounds: int) -> None:
    print("### One sequence, from crop to box\n")
    print("Medians of interleaved steps; the ratio is to the plain loop (`mstrack/plain.py`) in the same run.\n")
    rows = []
    for name in models:
        network = load(name).to(device)
        runners = {key: open_backend(network, key[0], device, key[1]) for key in variants(device)}
        count = rounds if name.endswith("tiny") else max(3, rounds // 6)
        found = measure_single(PlainTracker(plain_network(network)), runners, 1.0, count)
        rows += [[name, f"{s.backend}, {s.precision}", *parts(s), f"{s.fps / found[0].fps:.2f}"] for s in found]
    table(["network", "backend", "crop, ms", "network", "decode", "total", "frames/s", "x plain"], rows)


def parts(speed: Speed) -> list[str]:
    values = (speed.crop, speed.network, speed.decode, speed.total)
    return [*("" if np.isnan(value) else f"{value:.2f}" for value in values), f"{speed.fps:.2f}"]


# ---------------------------------------------------------------- lock step
def lockstep(models: list[str], device: torch.device, seconds: float, frames: int) -> None:
    print("### Sequences in lock step, fp32\n")
    rows = []
    for name in models:
        network = load(name)
        for backend in ("graph",) if device.type == "cuda" else ("eager", "onednn", "onnx"):
            runner = open_backend(network, backend, device)
            speeds = list(grow(lambda batch, runner=runner: measure_batch(runner, batch, seconds)))
            best = max(speeds, key=lambda speed: speed.fps)
            tiny = name.endswith("tiny")
            same, count = agreement(runner, clips(24 if tiny else 4, frames if tiny else 6), max(best.batch, 2))
            ratio = f"{best.fps / speeds[0].fps:.2f}"
            rows.append(
                [name, backend, f"{speeds[0].fps:.2f}", str(best.batch), f"{best.fps:.2f}", ratio, f"{same:.2%} of {count}"]
            )
    table(["network", "backend", "batch 1, frames/s", "best batch", "frames/s", "ratio", f"boxes within {SAME} px"], rows)


def grow(measure: Callable[[int], Speed], largest: int = 32) -> Iterator[Speed]:
    """Batches 1, 2, 4, ... until two in a row gain nothing."""
    best, idle, batch = 0.0, 0, 1
    while batch <= largest and idle < 2:
        speed = measure(batch)
        yield speed
        idle = 0 if speed.fps > WORTH * best else idle + 1
        best, batch = max(best, speed.fps), 2 * batch


def clips(count: int, frames: int) -> list[Sequence]:
    found = load_sequences("synthetic", "test", modality="thermal")
    return [sequence.cut(0, min(frames, len(sequence))) for sequence in found[:count]]


def agreement(runner: Backend, sequences: list[Sequence], batch: int) -> tuple[float, int]:
    """Share of frames whose boxes are the same as with one sequence at a time, and how many frames."""
    alone, together = ({s.name: t.boxes for s, t in follow(runner, sequences, batch=size)} for size in (1, batch))
    off = np.concatenate([np.abs(alone[name] - together[name]).max(1) for name in alone])
    return float((off <= SAME).mean()), len(off)


# ---------------------------------------------------------------- from files to boxes
def files(models: list[str], device: torch.device, seconds: float) -> None:
    print("### From files to boxes\n")
    print(f"JPEG pairs of 640 x 480, decoded by threads beside the network. LasHeR: {LASHER:,} frames.\n")
    rows = []
    for name in models:
        network = load(name)
        usual = "graph" if device.type == "cuda" else "onednn"
        for backend, precision, batch in ((usual, "fp32", 1), (usual, "fp32", 8), (usual, "bf16", 8)):
            speed = measure_files(open_backend(network, backend, device, precision), batch, seconds)
            share, hours = f"{speed.fps / speed.network_fps:.2f}", duration(LASHER / speed.fps)
            cells = [f"{speed.network_fps:.2f}", f"{speed.fps:.2f}", share, hours]
            rows.append([name, f"{backend}, {precision}", str(batch), *cells])
    table(["network", "backend", "batch", "network alone, frames/s", "file to box", "ratio", "LasHeR"], rows)


# ---------------------------------------------------------------- exactness
def exact(device: torch.device, golden: Path, count: int) -> None:
    print("### Fast and right\n")
    print("Success rate of mst-tiny on the embedded test set, and the golden tracking run of ostrack-b256.\n")
    network, sequences = checkpoint.load(TINY), load_sequences("synthetic", "test", modality="thermal")[:count]
    wide, frames, start = golden_run(golden) if (golden / "recipe.py").is_file() else (None, [], None)
    rows, reference = [], np.empty(0)
    for backend, precision in variants(device):
        tracked = {s.name: t for s, t in follow(open_backend(network, backend, device, precision), sequences, batch=16)}
        scores = [ope.score(tracked[s.name].boxes, None, s.boxes, s.valid) for s in sequences]
        success = 100 * float(np.mean([score.success.mean() for score in scores]))
        distance = ""
        if wide is not None:
            tracker = Tracker(open_backend(wide, backend, device, precision))
            tracker.init(frames[0], start)
            boxes = np.array([tracker.update(frame).box for frame in frames[1:]])
            reference = boxes if not len(reference) else reference
            distance = f"{np.abs(boxes - reference).mean():.4f}"
        rows.append([f"{backend}, {precision}", f"{success:.2f}", distance])
    headers = [f"SR, {len(sequences)} sequences", f"mean difference of the first {GOLDEN_FRAMES} golden boxes, px"]
    table(["backend", *headers], rows)


def golden_run(golden: Path) -> tuple[Network, list[Frame], Any]:
    """The network with the recipe's weights, the frames, and the first box of `track_ostrack256.npz`."""
    spec = importlib.util.spec_from_file_location("golden_recipe", golden / "recipe.py")
    recipe: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    with gzip.open(golden / "ostrack256_keys.txt.gz", "rt") as lines:
        rows = [line.split("\t") for line in lines]
    shapes = {key: () if shape == "scalar" else tuple(map(int, shape.split("x"))) for key, shape, _ in rows}
    network = create_model("ostrack-b256").eval()
    published = {key: torch.from_numpy(np.asarray(recipe.tensor(key, shape))) for key, shape in shapes.items()}
    network.load_state_dict(network.remap(published), strict=False)
    images = recipe.sequence(3)[: GOLDEN_FRAMES + 1]
    return (
        network,
        [Frame(np.ascontiguousarray(image)) for image in images],
        np.load(golden / "track_ostrack256.npz")["boxes"][0],
    )


# ---------------------------------------------------------------- ONNX
def onnx() -> None:
    print("### ONNX\n")
    with tempfile.TemporaryDirectory() as folder:
        parity = export(TINY, Path(folder) / "tiny.onnx")
    rows = [[name, f"{found:.1e}"] for name, found in parity.maps.items()]
    table(
        ["`mst export`, mst-tiny", "largest difference"],
        [*rows, [f"boxes of {parity.frames} frames, px", f"{parity.boxes:.1e}"]],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["mst-b256", "mst-tiny"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="*", default=["single", "lockstep", "files", "exact", "export"])
    parser.add_argument("--rounds", type=int, default=60, help="steps of each backend for mst-tiny; a sixth for larger ones")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement in lock step and of files")
    parser.add_argument("--frames", type=int, default=40, help="of each sequence whose boxes are compared")
    parser.add_argument("--sequences", type=int, default=60, help="of the embedded test set")
    parser.add_argument("--golden", type=Path, default=Path(__file__).parents[2] / "shared" / "golden")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    print(f"{datetime.date.today()}, {describe_machine(device)}, `python benchmarks/tracking.py`\n")
    jobs: dict[str, Callable[[], None]] = {
        "single": lambda: single(chosen.models, device, chosen.rounds),
        "lockstep": lambda: lockstep(chosen.models, device, chosen.seconds, chosen.frames),
        "files": lambda: files(chosen.models, device, chosen.seconds),
        "exact": lambda: exact(device, chosen.golden, chosen.sequences),
        "export": onnx,
    }
    for name in chosen.only:
        if name not in jobs:
            raise SystemExit(f"--only {name}: expected one of {', '.join(jobs)}.")
        try:
            jobs[name]()
        except UserError as error:
            print(f"{name}: {error}\n")


if __name__ == "__main__":
    main()
