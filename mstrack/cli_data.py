"""The `mst data` commands: what is there, whether it is sound, what it looks like."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mstrack.errors import DataWarning, UserError, warn
from mstrack.terminal import Progress, print_table, say, show_progress

if TYPE_CHECKING:
    from mstrack.data.sequence import Sequence

data_app = typer.Typer(no_args_is_help=True, help="Find, check and look at datasets.")

Root = Annotated[Path | None, typer.Option(help="The dataset's folder; default: looked for below --data-root.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of datasets; default: $MST_DATA, or ./data.")]
Modality = Annotated[
    Literal["rgb", "event", "depth", "thermal"] | None, typer.Option(help="The second modality, where a dataset has several.")
]


@data_app.command(name="list")
def list_found(data_root: DataRoot = None) -> None:
    """Which datasets are found where, and how many of their sequences."""
    from mstrack.data.doctor.survey import survey
    from mstrack.data.roots import data_roots

    print_table(f"datasets in {', '.join(map(str, data_roots(data_root)))}", *survey(data_root), "llll")


@data_app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A dataset of `mst list datasets`, or your own folder.")],
    split: Annotated[str | None, typer.Option(help="One split; default: the official ones.")] = None,
    root: Root = None,
    data_root: DataRoot = None,
    modality: Modality = None,
    headers: Annotated[bool, typer.Option("--headers", help="Read the header of every image, not of three.")] = False,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every image.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; default: a few more than cores.")] = None,
    out: Annotated[Path, typer.Option(help="File of all findings and facts.")] = Path("check.json"),
) -> None:
    """Check a dataset: counts, pairs, boxes, sizes, names; every image with --decode.

    Exit code 1 where there are errors: data that cannot be used as they are.
    """
    from mstrack.data.doctor import check as run
    from mstrack.data.doctor.findings import LEVELS
    from mstrack.results import write_json

    with show_progress() as progress:
        bars: list[Progress] = []

        def advance(done: int, total: int, text: str) -> None:
            if not bars:
                bars.append(progress("decoding" if decode else "reading headers"))
            bars[0](done, total, text)

        report = run(name, root, split, data_root, headers, decode, workers, advance, modality)
    where = report.root or ("" if ":" in name else "the cache")
    print_table(f"{name} in {where}" if where else name, *report.split_table(), "lrrrl")
    if report.findings:
        print_table("findings", *report.table(), "llrl")
    levels = [f"{level}s: {sum(finding.level == level for finding in report.findings)}" for level in LEVELS]
    if not decode:
        say("images were not decoded: --decode finds damaged, blank and repeated ones")
    write_json(out, report.to_json())
    say(f"{'   '.join(levels)}   all of them: {out}")
    raise typer.Exit(1 if report.errors else 0)


@data_app.command()
def show(
    sequence: Annotated[str, typer.Argument(metavar="SEQ", help="DATASET/SEQUENCE, such as lasher/boy, or your own folder.")],
    split: Annotated[str | None, typer.Option(help="Where it is; default: wherever it lies.")] = None,
    root: Root = None,
    data_root: DataRoot = None,
    modality: Modality = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames on the sheet.")] = 12,
    columns: Annotated[int, typer.Option(min=0, help="Frames per row; 0: as fits.")] = 0,
    width: Annotated[int, typer.Option(min=200, help="Width of the sheet in pixels.")] = 1600,
    out: Annotated[Path | None, typer.Option(help="The picture, .png or .jpg; default: SEQUENCE.png.")] = None,
) -> None:
    """Write a contact sheet of a sequence: frames, modalities, boxes."""
    from mstrack.data.drawing import contact_sheet, save_picture

    found = _find_sequence(sequence, split, root, data_root, modality)
    path = out or Path(f"{found.name}.png")
    save_picture(path, contact_sheet(found, frames, columns, width))
    say(f"{found.name}, {len(found)} frames: {path}")


@data_app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    modality: Annotated[Literal["event", "depth", "thermal"], typer.Option(help="The second modality.")] = "thermal",
) -> None:
    """Make a folder for data of your own: where frames go, and a recipe to train on them.

    What is there already is kept.
    """
    from mstrack.data.own import init as run

    made = run(folder, modality)
    for path in made:
        say(f"made  {path}")
    say(f"read {folder / 'README.txt'}, put sequences into {folder / 'train'}, then: mst data check {folder}")


@data_app.command()
def events(
    root: Annotated[Path, typer.Argument(help="A folder with recordings (.aedat4, .npz, .h5) anywhere in it, or one of them.")],
    recipe: Annotated[Literal["exposure", "interval", "stack3", "voxel"], typer.Option(help="How.")] = "interval",
    out: Annotated[Path | None, typer.Option(help="Folder of the frames; default: beside each recording.")] = None,
    with_frames: Annotated[bool, typer.Option("--with-frames", help="Write the camera's own frames too, to rgb/.")] = False,
    times: Annotated[
        Path | None, typer.Option(help="Times of the frames in microseconds, a line each, where a recording has no frames.")
    ] = None,
    fps: Annotated[float | None, typer.Option(min=0.01, help="Frames per second, instead of --times.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Keep what damaged recordings hold before the damage.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
) -> None:
    """Turn recordings of event cameras into frames of three channels, one for each colour frame.

    exposure: events during the exposure, as VisEvent and COESOT were made. interval: all until the next frame (the paper).
    stack3: three parts of the interval as channels (FE108). voxel: signed, weighted in time. What is finished is kept.
    """
    from mstrack.data.events import convert_tree

    with show_progress() as progress:
        done = convert_tree(root, recipe, out, workers, with_frames, times, fps, partial, progress(f"events to {recipe}"))
    for converted in done:
        say(str(converted))


@data_app.command()
def cache(
    recipe: Annotated[str, typer.Argument(help="The recipe whose training data are kept.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, as for `mst train`.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the cache; default: crops in $MST_CACHE.")] = None,
    max_gb: Annotated[float, typer.Option(min=0.001, help="Largest size of the folder.")] = 100.0,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; default: one per core.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every byte of what is there with its hash.")] = False,
) -> None:
    """Keep the annotated regions of a recipe's data, so that training decodes less.

    Samples stay the same but for JPEG losses; what does not lie in the cache is read from the dataset.
    """
    from mstrack.assembly import cache_crops
    from mstrack.config import load_config
    from mstrack.data.cropcache import default_folder

    folder = out or default_folder()
    with show_progress() as progress:
        built = cache_crops(
            load_config(recipe, overrides or ()), folder, max_gb * 1e9, workers, verify, progress("caching crops")
        )
    say(
        f"{built.made} sequence(s) made, {built.kept} kept, {built.bytes / 1e9:.2f} GB; {built.margin:.1f} target sizes around"
        f" each box, at most {built.outside:.1%} of the crops reach further and read the dataset"
    )
    say(f"use it: mst train {recipe} data.crops={folder}")


def _find_sequence(text: str, split: str | None, root: Path | None, data_root: Path | None, modality: str | None) -> "Sequence":
    """The sequence that `DATASET/SEQUENCE`, a dataset alone (its first), or a folder stands for."""
    from difflib import get_close_matches

    from mstrack.data import load_sequences
    from mstrack.data.doctor import ALL, checked_splits, collect_warnings
    from mstrack.data.own import read_one
    from mstrack.data.roots import is_own
    from mstrack.registry import DATASETS

    dataset, _, wanted = text.partition("/")
    folder = Path(text)
    if dataset not in DATASETS and is_own(text):
        dataset, wanted = text, ""
        if (folder / "groundtruth.txt").is_file():
            return read_one(folder.absolute(), modality)
    elif dataset not in DATASETS and ":" not in text and folder.parent.is_dir():
        dataset, _, wanted = text.rpartition("/")
    splits = [split] if split is not None else checked_splits(dataset) if dataset == "synthetic" else [ALL]
    names: list[str] = []
    found: Sequence | None = None
    twice: list[DataWarning] = []
    with collect_warnings(lambda said: twice.append(said) if said.kind == "twice" else None):
        for sequence in (s for part in splits for s in load_sequences(dataset, part, root, modality, data_root=data_root)):
            names.append(sequence.name)
            if sequence.name == (wanted or sequence.name):
                found = sequence
                break
    if found is not None:
        for said in twice:
            if said.sequence == found.name:
                warn(said.sequence, said.kind, f"{said.text} Name another by --split, or as a folder.")
        return found
    near = get_close_matches(wanted, names, n=5, cutoff=0.3) or names[:5]
    raise UserError(f"{dataset} has no sequence '{wanted}' among the {len(names)} that lie there. Near: {', '.join(near)}.")
