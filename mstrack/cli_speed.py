"""`mst export` and `mst bench`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mstrack.terminal import print_table, say, say_error, show_progress

if TYPE_CHECKING:
    from mstrack.bench import Bench
    from mstrack.measuring import Speed
    from mstrack.models import Network

speed_app = typer.Typer()

Backend = Annotated[
    Literal["auto", "eager", "onednn", "graph", "compiled", "onnx"], typer.Option(help="How the network is run: docs/speed.md.")
]
Precision = Annotated[
    Literal["fp32", "bf16"],
    typer.Option(
        help="bf16: wide networks two to three times as fast where the processor can; boxes move by parts of a pixel."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="The model that the checkpoint is of: module:object for one of your own, which a file cannot name."),
]


def open_checkpoint(checkpoint: str, model: str | None) -> "str | Network":
    """What a job takes: the name of the file, or the network where `--model` says which one it is."""
    if model is None:
        return checkpoint
    from mstrack.checkpoint import load

    return load(checkpoint, model)


@speed_app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or the name of a shipped weight.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The file to write.")],
    model: Model = None,
) -> None:
    """Write a checkpoint as ONNX, and compare it with the network: maps, and boxes of 20 frames."""
    from mstrack.export import LIMITS, PIXELS
    from mstrack.export import export as run

    with show_progress() as progress:
        parity = run(open_checkpoint(checkpoint, model), target, progress("export"))
    rows = [[name, f"{parity.maps[name]:.1e}", f"{limit:.0e}"] for name, limit in LIMITS.items()]
    rows.append([f"boxes of {parity.frames} frames, pixels", f"{parity.boxes:.1e}", f"{PIXELS:g}"])
    print_table("Largest differences between the network and the file", ["", "found", "at most"], rows)
    if not parity.holds:
        say_error(f"the file does not do what the network does; {target} was not written.")
        raise typer.Exit(1)
    say(f"written: {target}")


@speed_app.command()
def bench(
    checkpoint: Annotated[
        str, typer.Argument(help="A checkpoint, a shipped weight, the name of a model (random weights), or an .onnx file.")
    ] = "mst-tiny-thermal",
    backend: Annotated[
        list[str] | None, typer.Option(help="eager, onednn, graph, compiled or onnx; can be repeated. Default: what fits here.")
    ] = None,
    precision: Annotated[list[str] | None, typer.Option(help="fp32 or bf16; can be repeated. Default: both.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="The largest number of sequences in lock step that is tried.")] = 32,
    seconds: Annotated[float, typer.Option(min=0.01, help="To spend on each measurement.")] = 1.0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
    model: Model = None,
) -> None:
    """Frames per second of a tracker on this machine: one table, every backend, beside the plain loop of published code."""
    from mstrack.bench import bench as run
    from mstrack.distributed import choose_device

    with show_progress() as progress:
        found = run(
            open_checkpoint(checkpoint, model),
            backend or (),
            precision or (),
            choose_device(device),
            batch,
            seconds,
            progress("bench"),
        )
    headers, rows = bench_table(found)
    print_table(f"{found.name} on {found.machine}; milliseconds per frame", headers, rows)
    for line in bench_notes(found):
        say(line)


def bench_table(found: "Bench") -> tuple[list[str], list[list[str]]]:
    """Headers and rows: batch 1, then the best batch of each."""
    base = found.single[0].fps if found.single[0].backend == "plain loop" else math.nan
    headers = ["", "batch", "crop", "network", "decode", "total", "frames/s", "x plain"]
    best = [speed for speed in found.best if speed.batch > 1]
    return headers, [_row(speed, base) for speed in (*found.single, *best)]


def _row(speed: "Speed", base: float) -> list[str]:
    parts = [_digits(value) for value in (speed.crop, speed.network, speed.decode, speed.total)]
    ratio = "" if math.isnan(base) else f"{speed.fps / base:.2f}"
    return [f"{speed.backend}, {speed.precision}", str(speed.batch), *parts, _digits(speed.fps), ratio]


def _digits(value: float) -> str:
    """Three significant digits; nothing for what was not measured."""
    if math.isnan(value):
        return ""
    return f"{value:.{max(0, 2 - math.floor(math.log10(max(value, 1e-2))))}f}"


def bench_notes(found: "Bench") -> list[str]:
    """What the table does not say."""
    from mstrack.bench import LASHER

    fastest, files = found.fastest, found.files
    how = f"{fastest.backend}, {fastest.precision}, batch {files.batch}"
    return [
        f"from files (JPEG pairs of 640 x 480) to boxes, {how}: {files.fps:.1f} frames/s,"
        f" {files.fps / files.network_fps:.2f} of the network alone",
        f"LasHeR's test split, {LASHER:,} frames, at that rate: {duration(LASHER / files.fps)}",
        *(f"left out: {name}: {reason}" for name, reason in found.left_out.items()),
    ]


def duration(seconds: float) -> str:
    """Seconds as hours and minutes."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
