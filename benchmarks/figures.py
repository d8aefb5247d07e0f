"""The pictures of docs/reproduce.md and docs/does_it_help.md: sweeps on the validation split, and scores over long runs.

python benchmarks/figures.py            # the committed sweeps (mstrack/reproduce/sweeps.csv): docs/*_sweeps.svg
mst reproduce course --out DIR && python benchmarks/figures.py --course DIR      # and docs/does_it_help_course.svg
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from mstrack.reproduce import conduct
from mstrack.reproduce.outcomes import read_curve
from mstrack.reproduce.plan import read_plan
from mstrack.reproduce.rates import look

DOCS = Path(__file__).parents[1] / "docs"
QUESTION = {
    "learning rate": ("full", "mst", "vipt"),
    "strength of the pull": ("l2sp", "fisher"),
    "probability or strength": ("dropout", "jitter"),
}
"""What is swept, and the sweeps that share an axis."""
TABLES = {
    "learning rate, two streams": ("full", "sparse", "mst", "default"),
    "learning rate, prompts and adapters": ("vipt", "vipt-full", "vipt-mst", "sdstrack", "sdstrack-full", "sdstrack-mst"),
    "learning rate, one stream": ("rgb", "rgb-mst", "aux", "aux-mst", "ceutrack"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--course", type=Path, metavar="DIR", help="the folder of the study `course`")
    course = parser.parse_args().course
    matplotlib.rcParams.update(
        {"svg.hashsalt": "mstrack", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    draw_sweeps(QUESTION, "micro", ("thermal",), "does_it_help_sweeps.svg")
    draw_sweeps(TABLES, "tiny", ("thermal", "depth", "event"), "reproduce_sweeps.svg")
    if course is not None:
        draw_course(course)


def draw_sweeps(panels: dict[str, tuple[str, ...]], scale: str, modalities: tuple[str, ...], name: str) -> None:
    """A panel for each thing that is swept, a row for each modality; circles are what was chosen."""
    plan = read_plan()
    shape = {"figsize": (9, 2.4 * len(modalities) + 0.4), "sharex": "col", "sharey": "row", "squeeze": False}
    figure, rows = plt.subplots(len(modalities), len(panels), layout="constrained", **shape)
    for modality, axes in zip(modalities, rows, strict=True):
        axes[0].set_ylabel(f"validation SR (%), {modality}")
        for axis, (label, sweeps) in zip(axes, panels.items(), strict=True):
            for sweep in sweeps:
                choice = look(sweep, scale, modality)
                if choice is None or choice.modality != modality:
                    continue
                values, success = np.array(choice.points).T
                (line,) = axis.plot(values, success, marker="o", markersize=3, label=plan.rows[plan.sweeps[sweep].row].label)
                best = success[list(values).index(choice.value)]
                axis.plot(choice.value, best, "o", markersize=8, fillstyle="none", color=line.get_color())
            if label != "probability or strength":
                axis.set_xscale("log")
    for axis, above, label in zip(rows[-1], rows[0], panels, strict=True):
        axis.set_xlabel(label)
        above.legend(frameon=False, fontsize=7)
    save(figure, name)


def draw_course(out: Path) -> None:
    agenda = conduct.open_study(read_plan(), "course", "synthetic", (), None, out, None, None)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for row in agenda.rows:
        jobs = agenda.finished(row, "thermal")
        if not jobs:
            continue
        runs = [read_curve(job) for job in jobs]
        steps = [step for step, _ in runs[0]]
        for axis, measure in zip(axes, ("SR", "PR"), strict=True):
            scores = [[np.nanmean(found[measure]) for _, found in run] for run in runs]
            axis.plot(steps, np.mean(scores, axis=0), marker="o", markersize=3, label=agenda.site.plan.rows[row].label)
            axis.set_xlabel("iteration")
            axis.set_ylabel(f"test {measure} (%)")
    axes[1].legend(frameon=False, fontsize=7)
    save(figure, "does_it_help_course.svg")


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(DOCS / name, metadata={"Date": None})
    print(DOCS / name)


if __name__ == "__main__":
    main()
