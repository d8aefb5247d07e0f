"""The `mst vot` commands: run our trackers with the official VOT toolkit."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from mstrack.cli_data import DataRoot, Root
from mstrack.terminal import say

vot_app = typer.Typer(no_args_is_help=True, help="Run a tracker with the official VOT toolkit.")

Modality = Literal["rgb", "depth", "thermal"]
Policy = Literal["error", "zero", "copy", "last"]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")]
FOR_MISSING = "What is fed for a frame without its second modality."


@vot_app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The workspace.")],
    on: Annotated[Literal["depthtrack", "vot-rgbd"], typer.Option(help="The benchmark.")],
    checkpoint: Annotated[str, typer.Option(help="A .safetensors file, or the name of a shipped weight (mst-tiny-depth).")],
    root: Root = None,
    data_root: DataRoot = None,
    name: Annotated[str | None, typer.Option(help="What the toolkit calls the tracker; default: the checkpoint's.")] = None,
    device: Device = "auto",
    missing: Annotated[Policy, typer.Option(help=FOR_MISSING)] = "zero",
) -> None:
    """Write a workspace: configuration, experiments, tracker, and sequences that point to your images. Nothing is downloaded.

    For another tracker, name the same folder again. What is there already is kept, never replaced.
    """
    from mstrack.vot.workspace import INSTALL, SPACING, make_workspace

    made = make_workspace(folder, on, checkpoint, root, data_root, name, device, missing)
    say(f"workspace: {folder}   {made.sequences} sequences of {on}   tracker: {made.tracker} ({' + '.join(made.channels)})")
    if made.missing:
        say(f"{len(made.missing)} sequence(s) of the list are not there and are left out: {', '.join(made.missing)}")
    if made.anchored:
        say(
            f"{made.anchored} sequence(s) had no anchor.value and got anchors every {SPACING} frames: not the official ones,"
            " so the scores are not those of the challenge"
        )
    say("the toolkit lives in an environment of its own:")
    say(f"  python -m venv votenv && votenv/bin/pip install {INSTALL}")
    for job in ("evaluate", "analysis"):
        say(f"  votenv/bin/vot {job} --workspace {shlex.quote(str(folder))} {made.tracker}")


@vot_app.command()
def run(
    checkpoint: Annotated[str, typer.Argument(help="A .safetensors file, or the name of a shipped weight.")],
    modality: Annotated[Modality | None, typer.Option(help="How its second channel is read; default: as trained.")] = None,
    device: Device = "auto",
    missing: Annotated[Policy, typer.Option(help=FOR_MISSING)] = "error",
) -> None:
    """Be a tracker for the VOT toolkit: `trackers.ini` calls this, you need not."""
    from mstrack.vot.process import run as answer

    answer(checkpoint, modality, device, missing)
