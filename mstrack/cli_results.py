"""The commands on anybody's raw results: `score`, `export-results`, `compare`, `plot`."""

import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Literal

import typer

from mstrack.cli_data import DataRoot, Root
from mstrack.errors import UserError
from mstrack.terminal import print_table, say

results_app = typer.Typer()

Modality = Literal["event", "depth", "thermal"]

Protocol = Annotated[str | None, typer.Option(help="A scoring convention; default: that of the published numbers.")]
RawPaths = Annotated[
    list[Path], typer.Argument(metavar="DIR|ZIP...", help="Results: a folder or zip archive of one tracker or of several.")
]
Annotations = Annotated[
    Path | None, typer.Option(help="Annotations without frames: a folder of files or archives, or an archive.")
]
Form = Annotated[
    Literal["auto", "xywh", "corners"], typer.Option("--format", help="What four values are; auto: by the annotation.")
]
ImageSize = Annotated[
    str | None, typer.Option("--size", metavar="WxH", help="Of images that are not there; long-term F cuts boxes to it.")
]


@results_app.command()
def score(
    results: RawPaths,
    on: Annotated[str, typer.Option(help="The dataset they are results on, of `mst list datasets`, or your own folder.")],
    split: Annotated[str, typer.Option(help="Which of its splits, such as test or test-527.")] = "test",
    annotations: Annotations = None,
    root: Root = None,
    data_root: DataRoot = None,
    protocol: Protocol = None,
    form: Form = "auto",
    size: ImageSize = None,
    strict: Annotated[bool, typer.Option("--strict", help="A sequence without a result is an error.")] = False,
    json: Annotated[Path | None, typer.Option(help="File of all scores, unrounded, and how they were computed.")] = None,
) -> None:
    """Score raw results of any tracker, in any usual layout, as the dataset's own toolkit does.

    Annotations are read from the dataset's folder, or from bare files and archives: no frames are needed.
    """
    from mstrack.data.truths import load_truths
    from mstrack.metrics.protocols import protocol_of
    from mstrack.results import write_json
    from mstrack.scoring import describe, findings, score_paths, stamp, table_rows

    truths = load_truths(on, split, annotations, root, data_root, _read_size(size))
    scored = score_paths(results, truths, on, protocol, form, strict)
    made = stamp(on, split, truths, protocol or protocol_of(on))
    if json is not None:
        write_json(json, {"trackers": [describe(one) for one in scored], "stamp": made})
    print_table(
        f"{made['list']['name']}, protocol {made['protocol']}: percent", *table_rows(scored, made["protocol"], len(truths))
    )
    for one in scored:
        say(one.name)
        _say_indented(findings(one))
    say(f"{made['protocol']}: {made['source']}")
    _say_indented(
        [
            made["absent"],
            f"list {made['list']['name']}, hash {made['list']['hash']}: {made['sequences']} sequences, {made['frames']} frames",
            f"mstrack {made['mstrack']}" + (f"; all scores: {json}" if json else ""),
        ]
    )


@results_app.command(name="export-results")
def export_results(
    results: RawPaths,
    on: Annotated[str, typer.Option(help="The dataset they are results on, which has a format of its own.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
    to: Annotated[
        str | None, typer.Option("--format", help="Another format: visevent, lasher, depthtrack, vot, got10k, fe108, ...")
    ] = None,
    split: Annotated[str, typer.Option(help="Which of its splits.")] = "test",
    annotations: Annotations = None,
    root: Root = None,
    data_root: DataRoot = None,
    name: Annotated[str | None, typer.Option(help="What the tracker is called there; default: as the results are.")] = None,
    form: Annotated[Literal["auto", "xywh", "corners"], typer.Option("--input-format", help="What four values are.")] = "auto",
) -> None:
    """Write results as the dataset's own toolkit or server takes them."""
    from mstrack.rawresults.export import FORMATS, export_paths

    for results_of, files in export_paths(results, on, out, to, split, annotations, root, data_root, name, form):
        say(results_of.name)
        _say_indented([results_of.recognised, *results_of.notes, f"{len(files)} files as {FORMATS[to or on].layout} in {out}"])


@results_app.command()
def compare(
    results: RawPaths,
    on: Annotated[str, typer.Option(help="The dataset they are results on, of `mst list datasets`, or your own folder.")],
    published: Annotated[bool, typer.Option("--published", help="Show the paper's printed numbers beside, marked so.")] = False,
    split: Annotated[str, typer.Option(help="Which of its splits.")] = "test",
    annotations: Annotations = None,
    root: Root = None,
    data_root: DataRoot = None,
    modality: Annotated[
        Modality | None, typer.Option(help="The second modality of the frames, for datasets with several.")
    ] = None,
    protocol: Protocol = None,
    form: Form = "auto",
    size: ImageSize = None,
    frames: Annotated[
        Literal["embed", "link", "none"],
        typer.Option(help="Frames of the chosen sequences: small in the page, linked where they lie, or none."),
    ] = "embed",
    chosen: Annotated[int, typer.Option(min=0, help="Sequences with boxes and frames: most different and worst in turn.")] = 8,
    show: Annotated[list[str] | None, typer.Option(metavar="SEQUENCE", help="A sequence to show in any case.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the page, scores.json, CSV and LaTeX table.")] = Path("comparison"),
) -> None:
    """Compare trackers on one page: ranking with intervals, curves, attributes, pairs, sequences.

    The page is one file without network, to open, send and print.
    """
    import shlex

    from mstrack.compare.files import find_films, table_rows, write_comparison
    from mstrack.compare.published import published_results
    from mstrack.compare.standings import read_standings

    standings = read_standings(results, on, split, annotations, root, data_root, protocol, form, _read_size(size))
    films = find_films(standings, frames, chosen, show or (), split, root, data_root, modality, on)
    rows = published_results(on) if published else []
    if published and not rows:
        say(f"The paper prints no numbers on {on}.")
    page = write_comparison(out, standings, films, rows, shlex.join(["mst", *sys.argv[1:]]))
    print_table(f"{standings.title}, protocol {standings.protocol}: percent ± half the 95 % interval", *table_rows(standings))
    for note in standings.notes:
        say(note)
    say(f"page: {page}   numbers: {out / 'scores.json'}, scores.csv, sequences.csv, table.tex")


@results_app.command()
def plot(
    results: RawPaths,
    on: Annotated[str, typer.Option(help="The dataset they are results on, of `mst list datasets`, or your own folder.")],
    split: Annotated[str, typer.Option(help="Which of its splits.")] = "test",
    annotations: Annotations = None,
    root: Root = None,
    data_root: DataRoot = None,
    protocol: Protocol = None,
    form: Form = "auto",
    measure: Annotated[Literal["SR", "PR", "NPR"], typer.Option(help="For attributes and pairs.")] = "SR",
    only: Annotated[list[str] | None, typer.Option(metavar="TRACKER", help="A tracker to draw; default: all.")] = None,
    part: Annotated[str, typer.Option(metavar="ATTRIBUTE", help="Curves and pairs on its sequences alone.")] = "",
    pair: Annotated[tuple[str, str] | None, typer.Option(metavar="A B", help="Of the scatter; default: the two best.")] = None,
    file_type: Annotated[Literal["pdf", "svg"], typer.Option("--type", help="Of the files.")] = "pdf",
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = Path("figures"),
) -> None:
    """Draw the figures of a comparison for a paper: curves, radar, heat map, intervals, scatter."""
    from mstrack.compare.plots import write_figures
    from mstrack.compare.standings import read_standings

    standings = read_standings(results, on, split, annotations, root, data_root, protocol, form)
    for file in write_figures(out, standings, file_type, measure, only or (), part, pair):
        say(str(file))


def _read_size(text: str | None) -> tuple[int, int] | None:
    """Width and height of `640x360`.

    Raises:
        UserError: It is something else.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", text.strip().lower())
    if found is None:
        raise UserError(f"--size {text}: expected width and height in pixels, such as 640x360.")
    return int(found[1]), int(found[2])


def _say_indented(lines: list[str]) -> None:
    """Lines below a heading; wrapped where they are written to a terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    for line in lines:
        for part in textwrap.wrap(
            line, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        ):
            say(part)
