"""The `mst` commands. Each imports its job when it is called, so that `mst --help` is immediate."""

import io
import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Literal

import typer

from mstrack import __version__
from mstrack.cli_catalogue import Overrides, catalogue_app
from mstrack.cli_data import DataRoot, Root, data_app
from mstrack.cli_reproduce import reproduce_app
from mstrack.cli_results import Modality, Protocol, results_app
from mstrack.cli_speed import Backend, Model, Precision, open_checkpoint, speed_app
from mstrack.cli_vot import vot_app
from mstrack.errors import UserError
from mstrack.terminal import print_table, say, say_error, show_data_warnings, show_progress

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.add_typer(vot_app, name="vot")
app.add_typer(catalogue_app)
app.add_typer(results_app)
app.add_typer(speed_app)
app.add_typer(reproduce_app)

Recipe = Literal["exposure", "interval", "stack3", "voxel"]
Encoding = Annotated[
    str | None,
    typer.Option(help="What aux files become: depth jet, inverse, normals; thermal stored, grey. Default: as trained."),
]
Missing = Annotated[
    Literal["error", "zero", "copy", "last"], typer.Option(help="What is fed for a frame without its second modality.")
]
SHIPPED = "or the name of a shipped weight (mst-tiny-thermal)."
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")]


def main() -> None:
    """Run the command line: 0 done, 1 the run failed, 2 bad input (one message, no traceback unless `--debug`)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started us
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our signs gets question marks
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    show_data_warnings(quiet=os.environ.get("RANK", "0") != "0")  # of torchrun's processes the first one speaks
    try:
        app()
    except UserError as error:
        if debug:
            raise
        say_error(str(error))
        sys.exit(2)
    except OSError as error:
        if debug:
            raise
        say_error(f"{error.filename}: {error.strerror}." if error.filename is not None else str(error))
        sys.exit(2)
    except RuntimeError as error:
        said = _explain_failure(error)
        if debug or said is None:
            raise
        say_error(said)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != 130:  # typer makes 130 of Ctrl-C
            raise
        say_error("interrupted. What was finished is kept; the same command goes on from there.")
        sys.exit(130)


def _explain_failure(error: RuntimeError) -> str | None:
    """A sentence for the failures of a run that are not the program's own; None for all others."""
    text, kind = str(error), type(error).__name__
    if kind == "TrainingError":
        return text
    if kind == "OutOfMemoryError":
        return (
            f"the GPU has too little memory: {text.splitlines()[0]} In training, train.accumulate=N takes fewer pairs at once,"
            " and run.checkpointing=true keeps less of them; in tracking, take a smaller --batch."
        )
    if os.environ.get("WORLD_SIZE", "1") != "1" and any(word in text.lower() for word in ("by peer", "gloo", "nccl")):
        return f"rank {os.environ.get('RANK')}: another process of this run has stopped; its own message says why."
    if "DataLoader worker" in text:
        return (
            f"a loading process died ({text.splitlines()[0]}): killed, or out of memory or shared memory (/dev/shm)?"
            " Fewer of them: run.workers=N."
        )
    return None


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mstrack {__version__}")
        raise typer.Exit


@app.callback()
def _describe(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show it and exit.")] = False,
) -> None:
    """Multi-modal single-object tracking: adapt RGB trackers to RGB + event, depth or thermal.

    Start with [bold]mst quickstart[/bold].
    """


@app.command()
def quickstart(
    modality: Annotated[Modality, typer.Option(help="The second modality.")] = "thermal",
    seeds: Annotated[int, typer.Option(min=1, help="Training runs of each method.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of runs, results and report.html.")] = Path("quickstart"),
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Pre-train the RGB foundation too.")] = False,
) -> None:
    """Benchmark, training, tracking and report on the embedded data, in five minutes."""
    from mstrack.quickstart import run

    with show_progress() as progress:
        result = run(out, modality, seeds, from_scratch, progress)
    _print_scores(f"RGB + {modality}, embedded benchmark: percent ± half the 95 % interval over sequences", *result.table)
    for line in result.notes:
        say(line)
    say(f"report: {result.report}")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")] = "default",
    overrides: Overrides = None,
) -> None:
    """Train as a recipe says; an interrupted run goes on where it stood."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    from mstrack.config import load_config
    from mstrack.training import train as run

    changes = list(overrides or ())
    if "=" in recipe:  # the first argument is an override: the recipe was left out
        recipe, changes = "default", [recipe, *changes]
    config, first = load_config(recipe, changes), os.environ.get("RANK", "0") == "0"
    if first and config.model.weights is None:
        say(f"{config.model.name} starts from random weights: model.weights names no tracker to start from.")
    with show_progress(quiet=not first) as progress:
        checkpoint = run(config, progress=progress("training", "steps"), interrupted=stop.is_set)
    if first:
        done = not stop.is_set()
        say(f"checkpoint: {checkpoint}" if done else f"stopped; the same command goes on from {checkpoint.parent}.")


@app.command()
def track(
    checkpoint: Annotated[str, typer.Argument(help=f"A .safetensors file, an .onnx file of `mst export`, {SHIPPED}")],
    rgb: Annotated[Path, typer.Option(help="Folder of colour frames, a video, or an .aedat4 (its frames and events).")],
    box: Annotated[str, typer.Option(help="x,y,w,h of the target in the first frame, in pixels.")],
    aux: Annotated[Path | None, typer.Option(help="The second modality: a folder, a video, or a file of events.")] = None,
    modality: Annotated[
        Modality | None, typer.Option(help="How aux files are read; default: as the data say, or as trained.")
    ] = None,
    encoding: Encoding = None,
    events: Annotated[Recipe | None, typer.Option(help="How events become frames; default: as trained, or interval.")] = None,
    times: Annotated[
        Path | None, typer.Option(help="Times of the frames in microseconds, a line each, where --aux is a file of events.")
    ] = None,
    fps: Annotated[float | None, typer.Option(min=0.01, help="Frames per second, instead of --times.")] = None,
    missing: Missing = "error",
    out: Annotated[Path, typer.Option(help="Folder of the result.")] = Path("track"),
    video: Annotated[bool, typer.Option("--video", help="Write track.mp4 instead of annotated frames.")] = False,
    device: Device = "auto",
    backend: Backend = "auto",
    precision: Precision = "fp32",
    model: Model = None,
) -> None:
    """Follow a target through folders of images, videos, or a recording of frames and events."""
    from mstrack.backends import open_backend
    from mstrack.clip import modality_of, open_clip, parse_box, track_clip
    from mstrack.data.events import Timing
    from mstrack.distributed import choose_device
    from mstrack.provenance import trained_encoding, trained_modality, trained_recipe, warn_of_modality
    from mstrack.tracker import TrackerBatch

    start = parse_box(box)
    network = open_backend(open_checkpoint(checkpoint, model), backend, choose_device(device), precision)
    trained = trained_modality(network)
    kind = modality_of(rgb, aux, modality, trained)
    if kind != trained:
        warn_of_modality(network.provenance, kind, checkpoint)
    made = encoding or (trained_encoding(network) if kind == trained else None)
    painted = events or trained_recipe(network) or "interval"
    count, frames = open_clip(rgb, aux, kind, made, painted, missing, Timing(times, fps))
    settings: dict[str, object] = {"checkpoint": checkpoint, "rgb": str(rgb), "aux": None if aux is None else str(aux)}
    settings |= {"times": None if times is None else str(times), "fps": fps}
    settings |= {"modality": kind, "encoding": made, "events": painted, "missing": missing}
    settings |= {"backend": network.name, "precision": network.precision}
    with show_progress() as progress:
        tracker = TrackerBatch(network, missing=missing)
        result = track_clip(tracker, frames, count, start, out, settings, video, progress("tracking", "frames"))
    shown = "track.mp4" if video else "frames/"
    say(f"{len(result.boxes)} frames; mean confidence {result.confidence[1:].mean() if len(result.boxes) > 1 else 1:.3f}")
    if result.lacking:
        say(f"{len(result.lacking)} frame(s) lacked their second modality: --missing {missing}")
    say(f"boxes: {out / 'track.txt'}   pictures: {out / shown}")


def _results_folder(name: str, on: str, split: str, modality: str | None) -> Path:
    """A folder for each evaluation that differs."""
    parts = [name, Path(on).name.replace(":", "."), *([split] if split != "test" else []), *([modality] if modality else [])]
    return Path("results") / "-".join(parts)


@app.command(name="eval")
def evaluate(
    checkpoint: Annotated[str | None, typer.Argument(help=f"A .safetensors file, {SHIPPED}", show_default=False)] = None,
    tracker: Annotated[
        str | None, typer.Option(metavar="SPEC", help='A tracker that is not ours: trax:"COMMAND" or module:Class.')
    ] = None,
    tracker_argument: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="For that tracker.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a TraX tracker has for each answer.")] = 300,
    on: Annotated[str, typer.Option(help="A dataset of `mst list datasets`, or a folder of your own data.")] = "synthetic",
    split: Annotated[str, typer.Option(help="Which of its splits.")] = "test",
    root: Root = None,
    data_root: DataRoot = None,
    modality: Annotated[
        Literal["rgb", "event", "depth", "thermal"] | None,
        typer.Option(help="The second modality, or rgb for none; default: the dataset's, or as trained where it has several."),
    ] = None,
    encoding: Encoding = None,
    missing: Missing = "error",
    argument: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="For the dataset: events=exposure.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Sequences of the list that are not there are an error.")] = False,
    protocol: Protocol = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; default: results/TRACKER-DATASET[-SPLIT][-MODALITY].")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in lock step per process; for checkpoints.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto; for checkpoints.")] = "auto",
    backend: Backend = "auto",
    precision: Precision = "fp32",
    model: Model = None,
) -> None:
    """Track every sequence of a dataset, score, and write a report."""
    from mstrack.config import parse_pairs
    from mstrack.evaluation import evaluate as run
    from mstrack.evaluation import say_long_term, write_single_report
    from mstrack.foreign import choose_tracker

    chosen, name = choose_tracker(checkpoint, tracker, parse_pairs(tracker_argument or ()), timeout)
    if tracker is not None and (batch, device, backend, precision, model) != (32, "auto", "auto", "fp32", None):
        raise UserError(
            "--batch, --device, --backend, --precision and --model are for checkpoints: another tracker is told by its command"
            " or --tracker-argument."
        )
    first = os.environ.get("RANK", "0") == "0"
    with show_progress(quiet=not first) as progress:
        result = run(
            open_checkpoint(chosen, model) if isinstance(chosen, str) else chosen,
            on,
            out or _results_folder(name, on, split, modality),
            split,
            root,
            modality,
            batch,
            workers,
            device,
            progress("tracking", "frames"),
            encoding,
            missing,
            parse_pairs(argument or ()),
            data_root,
            strict,
            protocol,
            backend,
            precision,
        )
    if not first:
        return
    report, table = write_single_report(result, name, on, shlex.join(["mst", *sys.argv[1:]]))
    _print_scores(f"{name} on {on}, protocol {result.protocol}", *table)
    if result.long_term is not None:
        say(f"long-term: {say_long_term(result)}")
    if result.fps is not None:
        alone = "" if result.network_fps is None else f", {result.network_fps:.1f} network only"
        say(f"frames per second: {result.fps:.1f} from file to box{alone}")
    say(f"results: {result.folder}   report: {report}")


def _print_scores(title: str, headers: list[str], rows: list[list[str]]) -> None:
    """Measures of methods, without the last column: the differences are said in a sentence, and on the page."""
    print_table(title, headers[:-1], [row[:-1] for row in rows])
