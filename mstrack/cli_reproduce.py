"""`mst reproduce`: the tables and figures of the paper by name."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mstrack.cli_data import DataRoot
from mstrack.errors import UserError
from mstrack.terminal import print_table, say, show_progress

if TYPE_CHECKING:
    from mstrack.reproduce.agenda import Agenda, SweepRun
    from mstrack.reproduce.jobs import Site
    from mstrack.reproduce.running import Crew

reproduce_app = typer.Typer()

SWEEP = "sweep"
Modality = Literal["event", "depth", "thermal"]


@reproduce_app.command()
def reproduce(
    study: Annotated[
        str | None,
        typer.Argument(
            help="table1 ... table7, table11, fig1, fig3, fig5, fig6, does_it_help, combined, course, or sweep; none: a list."
        ),
    ] = None,
    on: Annotated[
        Literal["synthetic", "real"], typer.Option(help="Data: the embedded benchmark, or the paper's own.")
    ] = "synthetic",
    only: Annotated[list[str] | None, typer.Option(metavar="ROW", help="A row, or a sweep; can be repeated.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Training runs of each row; default: the study's; real: 1.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Rows at once; default: one per GPU, or per core.")] = None,
    devices: Annotated[str | None, typer.Option(help="cpu, or GPUs with commas between: cuda:0,cuda:1.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs, tables and pages.")] = Path("reproduce"),
    data_root: DataRoot = None,
    weights: Annotated[Path | None, typer.Option(help="Published weights; default: $MST_WEIGHTS, or ./weights.")] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="real: also where sequences are missing, for numbers of that part."),
    ] = False,
    scale: Annotated[str, typer.Option(help="sweep: at which scale, tiny or micro.")] = "tiny",
    modality: Annotated[Modality | None, typer.Option(help="sweep: on one modality; default: on all three.")] = None,
    into: Annotated[Path | None, typer.Option(help="sweep: another file of sweeps to add the results to.")] = None,
) -> None:
    """A table or figure of the paper, or some of its rows: train or load, evaluate, print beside what was published.

    Says first how long it takes, and on real data what is missing. It may be stopped at any time; the same command goes on.
    """
    from mstrack.reproduce import conduct
    from mstrack.reproduce.plan import read_plan
    from mstrack.reproduce.running import choose_crew

    plan = read_plan()
    if study is None:
        headers = ["study", "title", "data", "rows", "runs"]
        print_table("studies; `mst reproduce sweep` chooses learning rates", headers, conduct.list_studies(plan), "lllrr")
        return
    if study != SWEEP and (modality or into or scale != "tiny"):
        raise UserError("--scale, --modality and --into belong to `mst reproduce sweep`; a study says them itself.")
    if study == SWEEP and (on == "real" or seeds or data_root or weights):
        raise UserError("sweeps run on the embedded benchmark: --on, --seeds, --data-root and --weights belong to a study.")
    with choose_crew(jobs, devices) as crew:
        if study == SWEEP:
            site = conduct.open_site(plan, scale, out)
            runs = conduct.open_sweeps(site, only or [], [modality] if modality else ["thermal", "depth", "event"])
            _sweep(site, runs, crew, out, into)
        else:
            _study(conduct.open_study(plan, study, on, only or [], seeds, out, data_root, weights), study, crew, out, partial)


def _study(agenda: "Agenda", name: str, crew: "Crew", out: Path, partial: bool) -> None:
    from mstrack.reproduce import conduct

    if agenda.site.scale.data:
        conduct.check_requirements(name, agenda, crew, partial)
    with show_progress() as progress:
        conduct.make_data([job for stage in agenda.stages() for job in stage], progress)
    for line in conduct.announce(name, agenda, crew):
        say(line)
    with show_progress() as progress:
        conduct.conduct(agenda, crew, progress)
        outcome = conduct.report(name, agenda, out, crew, shlex.join(["mst", *sys.argv[1:]]), progress)
    for title, headers, rows in outcome.tables:
        print_table(title, headers, rows)
    for sentence in outcome.sentences:
        say(sentence)
    say("files: " + ", ".join(map(str, outcome.files)))


def _sweep(site: "Site", runs: "list[SweepRun]", crew: "Crew", out: Path, into: Path | None) -> None:
    from mstrack.reproduce import conduct

    with show_progress() as progress:
        conduct.make_data([job for stage in conduct.sweep_stages(site, runs) for job in stage], progress)
    for line in conduct.announce_sweeps(site, runs, crew):
        say(line)
    with show_progress() as progress:
        conduct.conduct_sweeps(site, runs, crew, progress)
    rows, files = conduct.report_sweeps(site, runs, out, into, shlex.join(["mst", *sys.argv[1:]]))
    print_table("validation SR by value", ["sweep", "modality", "value: SR", "chosen"], rows, "lllr")
    say("files: " + ", ".join(map(str, files)))
