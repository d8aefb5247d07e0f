"""The pictures of docs/reproduce.md and docs/does_it_help.md: sweeps on the validation split, and scores over long runs.

python benchmarks/figures.py            # the committed sweeps (mstrack/reproduce/sweeps.csv): docs/*_sweeps.svg
python benchmarks/figures.py --curves DIR   # after `mst reproduce course --out DIR` and `mst reproduce fig1 --out DIR`: test
                                            # scores over training too, docs/does_it_help_course.* and docs/does_it_help_fig1.*
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
from mstrack.results import write_text

DOCS = Path(__file__).parents[1] / "docs"
EVEN = "probability, strength or decay"
"""The axis that is not logarithmic."""
QUESTION = {
    "learning rate": ("full", "mst", "vipt"),
    "strength of the pull": ("l2sp", "fisher", "l2sp-mst", "srft"),
    EVEN: ("dropout", "jitter", "ema"),
}
"""What is swept, and the sweeps that share an axis."""
TABLES = {
    "learning rate, two streams": ("full", "sparse", "mst", "default"),
    "learning rate, prompts and adapters": ("vipt", "vipt-full", "vipt-mst", "sdstrack", "sdstrack-full", "sdstrack-mst"),
    "learning rate, one stream": ("rgb", "rgb-mst", "aux", "aux-mst", "ceutrack"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, metavar="DIR", help="the folder of the studies `course` and `fig1`")
    curves = parser.parse_args().curves
    matplotlib.rcParams.update(
        {"svg.hashsalt": "mstrack", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    draw_sweeps(QUESTION, "micro", ("thermal",), "does_it_help_sweeps.svg")
    draw_sweeps(TABLES, "tiny", ("thermal", "depth", "event"), "reproduce_sweeps.svg")
    if curves is not None:
        draw_curves("course", curves, "does_it_help_course")
        draw_curves("fig1", curves, "does_it_help_fig1")


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
            if label != EVEN:
                axis.set_xscale("log")
    for axis, above, label in zip(rows[-1], rows[0], panels, strict=True):
        axis.set_xlabel(label)
        above.legend(frameon=False, fontsize=7)
    save(figure, name)


def draw_curves(study: str, out: Path, name: str) -> None:
    """SR and PR over the iterations, means over the seeds; the numbers beside the picture, as CSV."""
    agenda = conduct.open_study(read_plan(), study, "synthetic", (), None, out, None, None)
    lines = ["row,iteration,seeds,SR,PR"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
    for row in agenda.rows:
        runs = [read_curve(job) for job in agenda.finished(row, "thermal")]
        if not runs:
            continue
        steps = [step for step, _ in runs[0]]
        means = {measure: np.mean([[found[measure] for _, found in run] for run in runs], axis=0) for measure in ("SR", "PR")}
        for axis, (measure, values) in zip(axes, means.items(), strict=True):
            axis.plot(steps, values, marker="o", markersize=3, label=agenda.site.plan.rows[row].label)
            axis.set_xlabel("iteration")
            axis.set_ylabel(f"test {measure} (%)")
        lines += [f"{row},{step},{len(runs)},{means['SR'][i]:.2f},{means['PR'][i]:.2f}" for i, step in enumerate(steps)]
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    save(figure, f"{name}.svg")
    write_text(DOCS / f"{name}.csv", "\n".join(lines) + "\n")


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(DOCS / name, metadata={"Date": None})
    print(DOCS / name)


if __name__ == "__main__":
    main()
