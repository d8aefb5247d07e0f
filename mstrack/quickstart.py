"""`mst quickstart`: the jobs of the other commands, one after the other on the embedded benchmark; nothing of its own."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from mstrack import __version__
from mstrack.data import Sequence, load_sequences
from mstrack.evaluation import Evaluation, Progress, evaluate
from mstrack.journal import read_curves
from mstrack.registry import resolve
from mstrack.report import Method, Report, summarise_findings, table_rows, write_report
from mstrack.reproduce.plan import read_plan
from mstrack.reproduce.rates import choose
from mstrack.reproduce.sensitivities import picture_sensitivities
from mstrack.training import train
from mstrack.tuning import effective_rate

Begin = Callable[..., Progress]


class Row(NamedTuple):
    """One method of the comparison: what it is called and what it changes in the quickstart recipe."""

    name: str
    label: str
    overrides: tuple[str, ...]


FULL = Row("full", "Full fine-tuning", ("tuning.name=full",))
CONTROL = Row("control", "Fine-tuning, MST's rate", ("tuning.name=full",))
MST = Row("mst", "MST (paper)", ("tuning.name=mst",))
DEFAULT = Row("default", "mstrack default", ("tuning.name=mst", "data.modality_dropout=0.3", "data.photometric=0.2"))
ROWS = (FULL, CONTROL, MST, DEFAULT)


@dataclass
class Result:
    """What a quickstart found: the table as headers and rows, the sentences under it, and the page."""

    table: tuple[list[str], list[list[str]]]
    notes: list[str]
    report: Path


@dataclass
class _Runs:
    """The runs of one method, one per seed."""

    row: Row
    rate: float
    folders: list[Path] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)


def run(out: Path, modality: str, seeds: int, from_scratch: bool, begin: Begin) -> Result:
    """Measure the RGB foundation, adapt it by each method, track the held-out sequences, and write the page.

    Args:
        out: Folder of runs, results and `report.html`; what is finished there is not done again.
        modality: `event`, `depth` or `thermal`.
        seeds: Training runs of each method.
        from_scratch: Pre-train the foundation instead of loading the shipped one.
        begin: Makes a progress bar, of a text and the unit of what is counted.
    """
    out = out / modality
    splits = {name: _make(name, modality, begin) for name in ("train", "val", "test")}
    sequences = splits["test"]
    foundation = "ostrack-tiny"
    if from_scratch:
        _make("pretrain", "rgb", begin)
        foundation = str(train("ostrack-tiny", [f"run.out={out / 'foundation'}"], begin("pre-training", "steps")))
    zero_shot = evaluate(
        foundation,
        "synthetic",
        out / "zero-shot",
        modality=modality,
        workers=_workers(),
        progress=begin("track RGB tracker, zero-shot", "frames"),
    )
    runs = []
    for row in ROWS:
        group = _Runs(row, learning_rate(row, modality))
        for seed in range(seeds):
            folder = out / f"{row.name}-{seed}"
            overrides = [*row.overrides, f"train.lr={group.rate}", f"train.seed={seed}", f"data.modality={modality}"]
            overrides += [f"model.weights={foundation}", f"run.out={folder}"]
            label = row.label if seeds == 1 else f"{row.label}, seed {seed}"
            trained = train("quickstart", overrides, begin(f"train {label}", "steps"))
            tracked = evaluate(trained, out=folder / "results", workers=_workers(), progress=begin(f"track {label}", "frames"))
            group.folders.append(folder)
            group.evaluations.append(tracked)
        runs.append(group)
    report = _assemble(sequences, zero_shot, runs, modality, seeds, foundation)
    path = out / "report.html"
    write_report(path, report)
    alone = ["One run of each method: the intervals say nothing about other seeds (--seeds N)."] if seeds == 1 else []
    return Result(table_rows(report), [*report.notes, summarise_findings(report), *alone], path)


def learning_rate(row: Row, modality: str) -> float:
    """The rate with the best mean validation SR in the committed sweep; for the control, MST's rate times mean(1 - m)."""
    if row is CONTROL:
        return learning_rate(MST, modality) * effective_rate(resolve("tunings", "mst")())
    return choose(read_plan(), row.name, "tiny", modality)


def _assemble(
    sequences: list[Sequence], zero_shot: Evaluation, runs: list[_Runs], modality: str, seeds: int, foundation: str
) -> Report:
    """The page's content."""
    methods = [
        Method(
            "zero-shot",
            "RGB tracker, zero-shot",
            zero_shot.scores,
            zero_shot.fps,
            {name: track.boxes for name, track in zero_shot.tracks.items()},
            settings={"learning rate": "-", "iterations": "0"},
        )
    ]
    for group in runs:
        first, *others = group.evaluations
        methods.append(
            Method(
                group.row.name,
                group.row.label,
                first.scores,
                first.fps,
                {name: track.boxes for name, track in first.tracks.items()},
                baseline=group.row is FULL,
                settings={"learning rate": f"{group.rate:.3g}", "changes": ", ".join(group.row.overrides)},
                curve=read_curves(group.folders[0], {"train/total": "training loss", "val/SR": "validation SR"}),
                repeats=[e.scores for e in others],
            )
        )
    return Report(
        title=f"RGB + {modality}: one foundation, {len(ROWS)} ways to adapt it",
        subtitle=f"mstrack quickstart, embedded benchmark, {len(sequences)} held-out sequences",
        methods=methods,
        sequences=sequences,
        settings={
            "mstrack": __version__,
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
            "foundation": foundation,
            "seeds": str(seeds),
            "learning rates": "the best of the committed sweep on the validation split, one for each method",
        },
        notes=["A demonstration on small synthetic videos with a tiny network: it shows the tool, not the state of the art."],
        sensitivity=picture_sensitivities(next(g for g in runs if g.row is MST).folders[0]),
        reproduce=[f"mst quickstart --modality {modality}" + (f" --seeds {seeds}" if seeds > 1 else "")],
    )


def _make(split: str, modality: str, begin: Begin) -> list[Sequence]:
    """One split of the embedded benchmark, with a progress bar where it does not exist yet."""
    bar: list[Progress] = []

    def advance(done: int, total: int) -> None:
        if not bar:
            bar.append(begin(f"make {split} frames"))
        bar[0](done, total, "")

    return list(load_sequences("synthetic", split, None, modality, {"progress": advance}))


def _workers() -> int:
    return min(4, os.cpu_count() or 1)
