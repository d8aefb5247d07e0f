"""A study from the first question to the last file: what is missing, how long it takes, the runs, the table."""

from collections.abc import Callable, Mapping
from collections.abc import Sequence as List
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mstrack.data import load_sequences
from mstrack.errors import UserError
from mstrack.registry import unknown
from mstrack.reproduce.agenda import Agenda, SweepRun, foundation_jobs, plan_study, record_sweeps, refuse_stale, sweep_runs
from mstrack.reproduce.costs import Cost, measure_costs
from mstrack.reproduce.drawings import Drawing, Named, Swept, draw_sweeps
from mstrack.reproduce.estimate import estimate, say_duration
from mstrack.reproduce.files import cost_rows, write_csv, write_markdown
from mstrack.reproduce.jobs import Job, Site
from mstrack.reproduce.page import say_choice, write_page, write_sweep_page
from mstrack.reproduce.plan import PAPER, Plan, find_study
from mstrack.reproduce.rates import FILE, Choice, look, merge_sweeps, read_sweeps
from mstrack.reproduce.requirements import find_incomplete, find_missing, find_partial_runs, say_where
from mstrack.reproduce.running import Crew, run_jobs
from mstrack.reproduce.table import Table, build_table, spelled, summarise, table_rows

On = Literal["synthetic", "real"]
Begin = Callable[[str], Callable[[int, int, str], None]]


@dataclass(frozen=True)
class Outcome:
    """What a study found: the table, what the networks cost, and the files that were written."""

    table: Table
    costs: Mapping[str, Cost]
    files: list[Path]
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, headers and rows of what a terminal shows."""
        data = "embedded benchmark" if self.table.synthetic else "real data"
        shown = []
        for ground in self.table.grounds:
            title = f"{self.table.name} on {spelled(ground.name)}, {data}: percent ± half the 95 % interval"
            title += f"; {', '.join(map(spelled, ground.columns))}: the paper's SR/PR"
            shown.append((title, *table_rows(self.table, ground)))
        if self.costs:
            shown.append(
                ("full-size networks on this machine, one sequence at a time, fp32", *cost_rows(self.table, self.costs))
            )
        return shown

    @property
    def sentences(self) -> list[str]:
        """What is to be said under the tables."""
        return [*summarise(self.table), *self.notes]


def open_study(
    plan: Plan,
    name: str,
    on: On,
    only: List[str],
    seeds: int | None,
    out: Path,
    data_root: Path | None = None,
    weights: Path | None = None,
) -> Agenda:
    """What a study has to do.

    Raises:
        UserError: No such study or row; a row that is not ours; or a study that the paper's data have no use for.
    """
    study = find_study(plan, name)
    if on == "real" and not study.real:
        raise UserError(
            f"{name} takes strengths from sweeps and needs a validation split, and neither is there for the paper's data."
            " Table 3 has full fine-tuning, MST and its control on them: `mst reproduce table3 --on real`."
        )
    scale = PAPER if on == "real" else study.scale
    return plan_study(Site(plan, scale, out / scale, data_root, weights), study, only, seeds)


def check_requirements(name: str, agenda: Agenda, crew: Crew, partial: bool = False) -> None:
    """Whether the paper's data and the weights are there.

    Args:
        name: Of the study.
        agenda: What it has to do.
        crew: Who does it.
        partial: Data sets of which sequences are missing will do.

    Raises:
        UserError: Something is not there: says what, where it is expected, where it is published, and how long the study would
            take.
    """
    missing = find_missing(agenda)
    if not partial:
        missing += [f"{sentence}; --partial takes what is there." for sentence in find_incomplete(agenda)]
    if missing:
        taken = estimate(agenda.stages(), crew)
        jobs = [job for stage in agenda.stages() for job in stage]
        listed = "\n".join(f"- {paragraph}" for paragraph in missing)
        where = say_where(agenda.site.data_root, agenda.site.weights)
        meant = " (by their operations; these are networks for GPUs)" if taken.counted else ""
        raise UserError(
            f"{name} on real data needs {len(missing)} thing(s) that are not there ({where}):\n{listed}\n"
            f"With them it is {len(jobs)} runs, about {say_duration(taken.seconds)}, {crew.text}{meant}."
        )


def announce(name: str, agenda: Agenda, crew: Crew) -> list[str]:
    """What will be done, how long it takes, and where it goes."""
    study, stages = agenda.study, agenda.stages()
    jobs = [job for stage in stages for job in stage]
    grounds = ", ".join(ground.name for ground in agenda.grounds)
    title = study.title if study.title.endswith("?") else f"{study.title}."
    lines = [f"{name}: {title} {len(agenda.rows)} row(s) on {grounds}: {say_count(jobs)}."]
    first = [f"{len(stages[0])} RGB tracker(s) to start from"] if stages[0] else []
    first += [f"{len(stages[1])} runs of sweeps on the validation split"] if stages[1] else []
    if first:
        lines.append(f"Among them {' and '.join(first)}, which come first.")
    lines += _say_time(stages, crew)
    if study.costs:
        lines.append("The full-size networks are timed at the end: seconds for each on a GPU, minutes on a CPU.")
    return [*lines, _say_place(agenda.site)]


def announce_sweeps(site: Site, runs: List[SweepRun], crew: Crew) -> list[str]:
    """The same for sweeps alone."""
    stages = sweep_stages(site, runs)
    names = list(dict.fromkeys(run.sweep for run in runs))
    first = [f"{len(stages[0])} RGB tracker(s) to start from come first."] if stages[0] else []
    return [
        f"{len(names)} sweep(s) at scale {site.scale_name}: {say_count(stages[1])}.",
        *first,
        *_say_time(stages, crew),
        _say_place(site),
    ]


def sweep_stages(site: Site, runs: List[SweepRun]) -> list[list[Job]]:
    """The RGB trackers that sweeps start from and that have to be made, and then their runs."""
    rows = dict.fromkeys(site.plan.sweeps[run.sweep].row for run in runs)
    return [foundation_jobs(site, rows), [run.job for run in runs]]


def say_count(jobs: List[Job]) -> str:
    """For example `48 runs, 3 of them done`."""
    return f"{len(jobs)} runs, {sum(job.done for job in jobs)} of them done"


def _say_time(stages: List[List[Job]], crew: Crew) -> list[str]:
    if all(job.done for stage in stages for job in stage):
        return []
    taken = estimate(stages, crew)
    how = "by their operations: they are too large to be timed here" if taken.counted else "timed on this machine just now"
    return [f"It will take about {say_duration(taken.seconds)}, {crew.text} ({how})."]


def _say_place(site: Site) -> str:
    return f"Runs: {site.out}. Ctrl-C stops at any time; the same command goes on."


def make_data(jobs: List[Job], begin: Begin) -> None:
    """Make those parts of the embedded benchmark that jobs need and nobody has made."""
    wanted: dict[str, tuple[str, dict[str, Any]]] = {}
    for job in (job for job in jobs if not job.done):
        config = job.config
        sources = [(s.split, s.arguments) for s in (*config.data.train, *config.data.val) if s.name == "synthetic"]
        if job.tests is not None and job.tests["on"] == "synthetic":
            sources.append(("test", dict(job.tests["arguments"])))
        wanted |= {f"{split} {arguments}": (split, arguments) for split, arguments in sources}
    for split, arguments in wanted.values():
        bar: list[Callable[[int, int, str], None]] = []

        def advance(done: int, total: int, split: str = split, bar: list[Callable[[int, int, str], None]] = bar) -> None:
            if not bar:
                bar.append(begin(f"make {split} frames"))
            bar[0](done, total, "")

        load_sequences("synthetic", split, arguments={**arguments, "progress": advance})


def conduct(agenda: Agenda, crew: Crew, begin: Begin) -> None:
    """Run what is left of a study.

    Raises:
        UserError: A folder holds runs with other settings; anything wrong with data or weights.
    """
    refuse_stale(job for stage in agenda.stages() for job in stage)
    runs = agenda.sweeps
    _make_foundations(agenda.foundations, crew, begin)
    if runs:
        conduct_sweeps(agenda.site, runs, crew, begin)
    jobs = agenda.row_jobs()
    if not all(job.done for job in jobs):
        run_jobs(jobs, crew, begin("rows"))


def _make_foundations(foundations: List[Job], crew: Crew, begin: Begin) -> None:
    if not all(job.done for job in foundations):
        run_jobs(foundations, crew, begin("RGB trackers"))


def conduct_sweeps(site: Site, runs: List[SweepRun], crew: Crew, begin: Begin) -> None:
    """Run sweeps and write what they found, those that are whole; the RGB trackers that they start from are made first."""
    foundations, jobs = sweep_stages(site, runs)
    refuse_stale((*foundations, *jobs))
    _make_foundations(foundations, crew, begin)
    try:
        run_jobs(jobs, crew, begin("sweeps"))
    finally:
        whole: dict[tuple[str, str], list[SweepRun]] = {}
        for run in runs:
            whole.setdefault((run.sweep, run.modality), []).append(run)
        record_sweeps(site, [run for group in whole.values() if all(run.job.done for run in group) for run in group])


def report(name: str, agenda: Agenda, out: Path, crew: Crew, command: str, begin: Begin) -> Outcome:
    """Put together what has been measured so far, and write it."""
    table = build_table(name, agenda)
    costs = measure_costs(agenda.site, agenda.rows, out, crew.devices[0], begin("costs")) if agenda.study.costs else {}
    files = [out / f"{name}{'' if table.synthetic else '-real'}.{suffix}" for suffix in ("csv", "md", "html")]
    lacking = [] if table.synthetic else [*find_incomplete(agenda), *find_partial_runs(agenda)]
    notes = (*(f"Not the whole benchmark: {sentence}." for sentence in lacking), *agenda.study.notes)
    write_csv(files[0], table, costs)
    chosen = (*notes, say_choice(agenda, table))
    write_markdown(files[1], table, costs, command, chosen)
    vectors = write_page(files[2], agenda, table, costs, command, notes)
    return Outcome(table, costs, [*files, *vectors], chosen)


# ---------------------------------------------------------------- sweeps alone
def open_site(plan: Plan, scale: str, out: Path) -> Site:
    """Where sweeps of a scale are run.

    Raises:
        UserError: No such scale, or the paper's, on whose data nothing is swept.
    """
    known = [name for name, value in plan.scales.items() if not value.data]
    if scale not in known:
        raise UserError(unknown("scale for sweeps", scale, known))
    return Site(plan, scale, out / scale)


def open_sweeps(site: Site, only: List[str], modalities: List[str]) -> list[SweepRun]:
    """The runs of the sweeps that are named, or of all.

    Raises:
        UserError: No such sweep.
    """
    return sweep_runs(site, list(only or site.plan.sweeps), modalities)


def report_sweeps(
    site: Site, runs: List[SweepRun], out: Path, into: Path | None, command: str
) -> tuple[list[list[str]], list[Path]]:
    """Rows of a table of what sweeps found, and the files: `sweeps.csv`, and a page of their curves."""
    choices: dict[tuple[str, str], Choice] = {}
    for run in runs:
        found = look(run.sweep, site.scale_name, run.modality, site.out)
        if found is not None:
            choices[run.sweep, run.modality] = found
    rows = [
        [sweep, modality, ", ".join(f"{value:g}: {success:.1f}" for value, success in choice.points), f"{choice.value:g}"]
        for (sweep, modality), choice in choices.items()
    ]
    files = [site.out / FILE, out / "sweep.html"]
    drawings: list[Drawing] = []
    for modality in dict.fromkeys(modality for _, modality in choices):
        own = {Swept(sweep, site.plan.sweeps[sweep].key): c for (sweep, m), c in choices.items() if m == modality}
        drawings += draw_sweeps(own, f"Validation, {modality}", [Named(sweep) for sweep, _ in choices])
    write_sweep_page(files[1], site.scale_name, drawings, rows, command)
    if into is not None:
        merge_sweeps(into, read_sweeps(files[0]))
        files.append(into)
    return rows, files


def list_studies(plan: Plan) -> list[list[str]]:
    """Name, title, data sets, rows and runs of every study."""
    rows = []
    for name, study in plan.studies.items():
        agenda = plan_study(Site(plan, study.scale, Path()), study)
        rows.append(
            [name, study.title, ", ".join(study.columns), str(len(study.rows)), str(len(agenda.row_jobs(listing=True)))]
        )
    return rows
