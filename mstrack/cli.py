"""The `mst` commands. Each imports its job when it is called, so that `mst --help` is immediate."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mstrack.errors import UserError
from mstrack.registry import TABLES, unknown

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(no_args_is_help=True, help="Look at configurations.")
app.add_typer(config_app, name="config")

Modality = Literal["event", "depth", "thermal"]
Checkpoint = Annotated[str, typer.Argument(help="A .safetensors file, or the name of a shipped weight (mst-tiny-thermal).")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as train.lr=3e-4.")]


def main() -> None:
    """Run the command line: 0 done, 1 the run failed, 2 bad input (one message, no traceback unless `--debug`)."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except UserError as error:
        if debug:
            raise
        _say_error(str(error))
        sys.exit(2)
    except RuntimeError as error:
        if debug or type(error).__name__ != "TrainingError":
            raise
        _say_error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        _say_error("interrupted. What was finished is kept; the same command goes on from there.")
        sys.exit(130)


@app.callback()
def _describe(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
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

    with _progress() as progress:
        result = run(out, modality, seeds, from_scratch, progress)
    _print_table(f"RGB + {modality}, embedded benchmark: percent ± half the 95 % interval over sequences", *result.table)
    for line in result.notes:
        _say(line)
    _say(f"report: {result.report}")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    overrides: Overrides = None,
) -> None:
    """Train as a recipe says; an interrupted run goes on where it stood."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    from mstrack.training import train as run

    with _progress(quiet=os.environ.get("RANK", "0") != "0") as progress:
        checkpoint = run(recipe, overrides or (), progress("training"), stop.is_set)
    if os.environ.get("RANK", "0") == "0":
        done = not stop.is_set()
        _say(f"checkpoint: {checkpoint}" if done else f"stopped; the same command goes on from {checkpoint.parent}.")


@app.command()
def track(
    checkpoint: Checkpoint,
    rgb: Annotated[Path, typer.Option(help="Folder of colour frames.")],
    box: Annotated[str, typer.Option(help="x,y,w,h of the target in the first frame, in pixels.")],
    aux: Annotated[Path | None, typer.Option(help="Folder of the second modality, paired by position.")] = None,
    modality: Annotated[Modality | None, typer.Option(help="How aux files are read; default: as trained.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the result.")] = Path("track"),
    video: Annotated[bool, typer.Option("--video", help="Write track.mp4 instead of annotated frames.")] = False,
    device: Device = "auto",
) -> None:
    """Follow a target through folders of images."""
    from mstrack.checkpoint import load
    from mstrack.clip import parse_box, track_clip
    from mstrack.distributed import choose_device
    from mstrack.evaluation import trained_modality
    from mstrack.tracker import Tracker

    start = parse_box(box)
    model = load(checkpoint)
    with _progress() as progress:
        tracker = Tracker(model, choose_device(device))
        chosen = modality or trained_modality(model)
        result = track_clip(tracker, rgb, aux, start, out, chosen, video, progress("tracking"))
    shown = "track.mp4" if video else "frames/"
    _say(f"{len(result.boxes)} frames; mean confidence {result.confidence[1:].mean() if len(result.boxes) > 1 else 1:.3f}")
    _say(f"boxes: {out / 'track.txt'}   pictures: {out / shown}")


@app.command(name="eval")
def evaluate(
    checkpoint: Checkpoint,
    on: Annotated[str, typer.Option(help="A dataset of `mst list datasets`.")] = "synthetic",
    split: Annotated[str, typer.Option(help="Which of its splits.")] = "test",
    root: Annotated[Path | None, typer.Option(help="The dataset's folder.")] = None,
    modality: Annotated[Modality | None, typer.Option(help="The second modality; default: as trained.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default: results/CHECKPOINT-DATASET.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in lock step per process.")] = 32,
    device: Device = "auto",
) -> None:
    """Track every sequence of a dataset, score, and write a report."""
    from mstrack.evaluation import evaluate as run
    from mstrack.evaluation import write_single_report

    name = Path(checkpoint).stem
    with _progress() as progress:
        result = run(
            checkpoint,
            on,
            out or Path("results") / f"{name}-{on}",
            split,
            root,
            modality,
            batch,
            workers,
            device,
            progress("tracking"),
        )
    report, table = write_single_report(result, name, on)
    _print_table(f"{name} on {on}", *table)
    _say(f"results: {result.folder}   report: {report}")


@app.command(name="list")
def list_names(kind: Annotated[str, typer.Argument(help="models, datasets, tunings, metrics, recipes or weights.")]) -> None:
    """What there is: models, datasets, tunings, metrics, recipes, weights."""
    from mstrack.config import recipe_names

    if kind == "recipes":
        names = recipe_names()
    elif kind == "weights":
        names = sorted(f.stem for f in (Path(__file__).parent / "weights").glob("*.safetensors"))
    elif kind in TABLES:
        names = sorted(TABLES[kind])
    else:
        raise UserError(unknown("list", kind, [*TABLES, "recipes", "weights"]))
    for name in names:
        typer.echo(name)


@config_app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")], overrides: Overrides = None
) -> None:
    """Print the whole configuration that a recipe and overrides make, defaults included."""
    from mstrack.config import dump_config, load_config

    typer.echo(dump_config(load_config(recipe, overrides or ())), nl=False)


@app.command()
def info(checkpoint: Annotated[str, typer.Argument(help="A checkpoint, a shipped weight, or the name of a model.")]) -> None:
    """Parameters, GFLOPs and provenance of a checkpoint or model."""
    from mstrack.description import describe

    for line in describe(checkpoint):
        typer.echo(line)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A published .pth.tar or .pth file.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    model: Annotated[str | None, typer.Option(help="Which model it is for; default: recognised by its keys.")] = None,
) -> None:
    """Turn a published checkpoint into a self-describing .safetensors file."""
    from mstrack.checkpoint import convert as run

    run(source, target, model)
    _say(f"checkpoint: {target}")


# ---------------------------------------------------------------- the terminal
@contextmanager
def _progress(quiet: bool = False) -> Iterator[Callable[[str], Callable[[int, int, str], None]]]:
    """Bars with rate and time left: `progress("training")` makes one, called with (done, total, text)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f}/s", style="cyan")

    console = Console(stderr=True)
    columns = [
        TextColumn("{task.description:<32}"),
        BarColumn(bar_width=14),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    ]
    if console.width >= 100:
        columns.append(TextColumn("[dim]{task.fields[said]}"))
    with Progress(*columns, console=console, disable=quiet) as bars:

        def begin(description: str) -> Callable[[int, int, str], None]:
            task = bars.add_task(description, total=None, said="")

            def advance(done: int, total: int, text: str) -> None:
                bars.update(task, completed=done, total=total)
                if text:
                    bars.update(task, said=text)

            return advance

        yield begin


def _print_table(title: str, headers: list[str], rows: list[list[str]]) -> None:
    """Measures of methods, without the last column: the differences are said in a sentence, and on the page."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for i, header in enumerate(headers[:-1]):
        table.add_column(header, justify="right" if i else "left", no_wrap=i > 0)
    for row in rows:
        table.add_row(*row[:-1])
    console = Console()
    (console if console.is_terminal else Console(width=max(console.width, 110))).print(table)


def _say(line: str) -> None:
    from rich.console import Console

    Console(soft_wrap=True, highlight=False, markup=False).print(line)


def _say_error(message: str) -> None:
    typer.echo(typer.style("error: ", fg="red", bold=True) + message, err=True)
