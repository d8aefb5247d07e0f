"""The pictures of docs/does_it_help.md: sweeps on the validation split, and test scores over the course of long runs.

    mst reproduce does_it_help --out DIR && mst reproduce course --out DIR && python benchmarks/question_figures.py DIR

Reads what those commands left in DIR; writes docs/does_it_help_sweeps.svg and docs/does_it_help_course.svg.
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
PANELS = {
    "learning rate": ("full", "mst", "vipt"),
    "strength of the pull": ("l2sp", "fisher"),
    "probability or strength": ("dropout", "jitter"),
}
"""What is swept, and the sweeps that share an axis."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder of the two studies")
    out = parser.parse_args().out
    matplotlib.rcParams.update(
        {"svg.hashsalt": "mstrack", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    draw_sweeps(out / "micro")
    draw_course(out)


def draw_sweeps(site: Path) -> None:
    plan = read_plan()
    figure, axes = plt.subplots(1, len(PANELS), figsize=(9, 2.8), sharey=True, layout="constrained")
    for axis, (label, sweeps) in zip(axes, PANELS.items(), strict=True):
        for sweep in sweeps:
            choice = look(sweep, "micro", "thermal", site)
            if choice is None:
                continue
            values, success = np.array(choice.points).T
            axis.plot(values, success, marker="o", markersize=3, label=plan.rows[plan.sweeps[sweep].row].label)
            axis.plot(
                choice.value, success[list(values).index(choice.value)], "o", markersize=8, fillstyle="none", color="black"
            )
        axis.set_xlabel(label)
        axis.legend(frameon=False, fontsize=7)
        if label != "probability or strength":
            axis.set_xscale("log")
    axes[0].set_ylabel("validation SR (%)")
    save(figure, "does_it_help_sweeps.svg")


def draw_course(out: Path) -> None:
    agenda = conduct.open_study(read_plan(), "course", "synthetic", None, None, out, None, None)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for row in agenda.rows:
        jobs = [job for job in agenda.jobs_of(row, "thermal", listing=True) if job.done]
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
