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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mstrack import checkpoint, create_model
from mstrack.backends import Backend, open_backend
from mstrack.backends.onednn import is_supported
from mstrack.bench import LASHER
from mstrack.cli_speed import duration
from mstrack.data import load_sequences
from mstrack.data.sequence import Frame, Sequence
from mstrack.errors import UserError
from mstrack.export import export
from mstrack.lockstep import follow
from mstrack.measuring import WORTH, Speed, describe_machine, measure_batch, measure_files, measure_single
from mstrack.metrics import ope
from mstrack.models.network import Network
from mstrack.plain import PlainTracker, plain_network
from mstrack.tracker import TrackerBatch

TINY = "mst-tiny-thermal"
GOLDEN_FRAMES = 10
SHIPPED = 60
"""Sequences of the embedded test set, of each modality."""
SAME = 0.01
"""Pixels within which two boxes are the same."""


def load(name: str) -> Network:
    torch.manual_seed(0)
    return checkpoint.load(TINY) if name == "mst-tiny" else create_model(name).eval()


def variants(device: torch.device, backends: Iterable[str] = ()) -> list[tuple[str, str]]:
    names = backends or (("eager", "graph", "compiled") if device.type == "cuda" else ("eager", "onednn", "onnx"))
    return [(name, precision) for precision in precisions(device) for name in names if (name, precision) != ("onnx", "bf16")]


def precisions(device: torch.device) -> tuple[str, ...]:
    """bf16 only where the processor has it: elsewhere a step would take minutes."""
    return ("fp32", "bf16") if device.type == "cuda" or is_supported("bf16") else ("fp32",)


def table(headers: list[str], rows: Iterable[list[str]]) -> None:
    """Rows are printed as they come."""
    print("|", " | ".join(headers), "|\n|" + "---|" * len(headers), flush=True)
    for row in rows:
        print("|", " | ".join(row), "|", flush=True)
    print()


# ---------------------------------------------------------------- one sequence, from crop to box
def single(models: list[str], device: torch.device, backends: list[str], rounds: int) -> None:
    print("### One sequence, from crop to box\n")
    print("Medians of interleaved steps; the ratio is to the plain loop (`mstrack/plain.py`) in the same run.\n")

    def rows() -> Iterator[list[str]]:
        for name in models:
            network = load(name).to(device)
            runners = {key: open_backend(network, key[0], device, key[1]) for key in variants(device, backends)}
            count = rounds if name.endswith("tiny") else max(3, rounds // 6)
            found = measure_single(PlainTracker(plain_network(network)), runners, 1.0, count)
            yield from ([name, f"{s.backend}, {s.precision}", *parts(s), f"{s.fps / found[0].fps:.2f}"] for s in found)

    table(["network", "backend", "crop, ms", "network", "decode", "total", "frames/s", "x plain"], rows())


def parts(speed: Speed) -> list[str]:
    values = (speed.crop, speed.network, speed.decode, speed.total)
    return [*("" if np.isnan(value) else f"{value:.2f}" for value in values), f"{speed.fps:.2f}"]


# ---------------------------------------------------------------- lock step
def lockstep(models: list[str], device: torch.device, seconds: float, frames: int) -> None:
    print("### Sequences in lock step\n")

    def rows() -> Iterator[list[str]]:
        for name, backend, precision in [(model, *way) for model in models for way in usual(model, device)]:
            runner = open_backend(load(name), backend, device, precision)
            largest = 32 if name.endswith("tiny") or device.type == "cuda" else 4
            speeds = list(grow(lambda batch, runner=runner: measure_batch(runner, batch, seconds), largest))
            best = max(speeds, key=lambda speed: speed.fps)
            tiny = name.endswith("tiny")
            same, count = agreement(runner, clips(24 if tiny else 4, frames if tiny else 5), max(best.batch, 2))
            ratio = f"{best.fps / speeds[0].fps:.2f}"
            rates = [f"{speeds[0].fps:.2f}", str(best.batch), f"{best.fps:.2f}", ratio]
            yield [name, f"{backend}, {precision}", *rates, f"{same:.2%} of {count}"]

    table(["network", "backend", "batch 1, frames/s", "best batch", "frames/s", "ratio", f"boxes within {SAME} px"], rows())


def usual(name: str, device: torch.device) -> list[tuple[str, str]]:
    """What `auto` chooses, and on a CPU its rivals for the tiny network."""
    if device.type == "cuda":
        return [("graph", "fp32"), ("graph", "bf16")]
    return [(backend, "fp32") for backend in (("eager", "onednn", "onnx") if name.endswith("tiny") else ("onednn",))]


def grow(measure: Callable[[int], Speed], largest: int) -> Iterator[Speed]:
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

    many = 32 if device.type == "cuda" else 4

    def rows() -> Iterator[list[str]]:
        for name in models:
            for precision, batch in [("fp32", 1), *((precision, many) for precision in precisions(device))]:
                runner = open_backend(load(name), "auto", device, precision)
                speed = measure_files(runner, batch, seconds)
                share, hours = f"{speed.fps / speed.network_fps:.2f}", duration(LASHER / speed.fps)
                cells = [f"{speed.network_fps:.2f}", f"{speed.fps:.2f}", share, hours]
                yield [name, f"{runner.name}, {precision}", str(batch), *cells]

    table(["network", "backend", "batch", "network alone, frames/s", "file to box", "ratio", "LasHeR"], rows())


# ---------------------------------------------------------------- exactness
def exact(device: torch.device, backends: list[str], golden: Path, count: int) -> None:
    print("### Fast and right\n")
    print(
        "Success rates of the shipped trackers on the embedded test sets, each difference with half its 95 % interval over the"
        f" sequences; and the first {GOLDEN_FRAMES} boxes of the golden run of ostrack-b256, each from the last box of the fp32"
        " run, and each from its own: random weights turn the least difference of a crop into another box.\n"
    )
    more = {"sequences": count} if count > SHIPPED else {}
    names = ("thermal", "depth", "event")
    kinds = {kind: load_sequences("synthetic", "test", modality=kind, arguments=more)[:count] for kind in names}
    networks = {kind: checkpoint.load(f"mst-tiny-{kind}") for kind in kinds}
    wide = golden_run(golden) if (golden / "recipe.py").is_file() else None

    def rows() -> Iterator[list[str]]:
        reference: dict[str, Any] = {}
        for backend, precision in variants(device, backends):
            success = {
                kind: rates(open_backend(networks[kind], backend, device, precision), sequences)
                for kind, sequences in kinds.items()
            }
            boxes = [] if wide is None else golden_boxes(open_backend(wide[0], backend, device, precision), wide, reference)
            reference = reference or {**success, "boxes": boxes[0] if boxes else None}
            every = [success[kind] - reference[kind] for kind in kinds]
            cells = [f"{success[kind].mean():.2f} ({spread(d)})" for kind, d in zip(kinds, every, strict=True)]
            distances = [f"{np.abs(found - reference['boxes']).mean():.3f}" for found in boxes] or ["", ""]
            yield [f"{backend}, {precision}", *cells, spread(np.concatenate(every)), *distances]

    headers = [*(f"SR, {kind}" for kind in kinds), "all", "px, from the fp32 boxes", "px, from its own"]
    table(["backend", *headers], rows())


def rates(runner: Backend, sequences: list[Sequence]) -> Any:
    """Success rate of each sequence, in percent."""
    tracked = {s.name: t.boxes for s, t in follow(runner, sequences, batch=16)}
    return np.array([100 * ope.score(tracked[s.name], None, s.boxes, s.valid).success.mean() for s in sequences])


def spread(differences: Any) -> str:
    """Mean and half of the 95 % interval."""
    return f"{differences.mean():+.2f} ± {1.96 * differences.std() / len(differences) ** 0.5:.2f}"


def golden_boxes(runner: Backend, run: tuple[Network, list[Frame], Any], reference: dict[str, Any]) -> list[Any]:
    """Boxes of the frames after the first, from the last box of the reference and from the last of its own."""
    _, frames, start = run
    found = []
    for before in ([start, *reference["boxes"]] if reference else None, None):
        tracker = TrackerBatch(runner)
        tracker.init([frames[0]], [start])
        boxes = []
        for i, frame in enumerate(frames[1:]):
            if before is not None:
                tracker.move([before[i]])
            boxes.append(tracker.update([frame])[0][0])
        found.append(np.array(boxes))
    return found


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
    parser.add_argument("--backends", nargs="*", default=[], help="of `single` and `exact`; none: all of this device")
    parser.add_argument("--rounds", type=int, default=60, help="steps of each backend for mst-tiny; a sixth for larger ones")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement in lock step and of files")
    parser.add_argument("--frames", type=int, default=40, help="of each sequence whose boxes are compared")
    parser.add_argument("--sequences", type=int, default=SHIPPED, help="of the embedded test set, or more made as these are")
    parser.add_argument("--golden", type=Path, default=Path(__file__).parents[2] / "shared" / "golden")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    print(f"{datetime.date.today()}, {describe_machine(device)}, `python benchmarks/tracking.py`\n")
    jobs: dict[str, Callable[[], None]] = {
        "single": lambda: single(chosen.models, device, chosen.backends, chosen.rounds),
        "lockstep": lambda: lockstep(chosen.models, device, chosen.seconds, chosen.frames),
        "files": lambda: files(chosen.models, device, chosen.seconds),
        "exact": lambda: exact(device, chosen.backends, chosen.golden, chosen.sequences),
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
