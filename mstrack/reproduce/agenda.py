"""What a study has to do, in stages: the RGB trackers to start from, sweeps that nobody has run, then the rows."""

from collections.abc import Iterable
from collections.abc import Sequence as List
from dataclasses import dataclass

from mstrack.errors import UserError
from mstrack.registry import unknown
from mstrack.reproduce.doing import check_settings, find_differences
from mstrack.reproduce.jobs import Job, Site, foundation_job, provisional, row_job, sweep_job, trains
from mstrack.reproduce.outcomes import read_validation
from mstrack.reproduce.plan import Ground, Study, chosen_rows, grounds_of, seeds_of
from mstrack.reproduce.rates import FILE, Line, look, merge_sweeps


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    sweep: str
    value: float
    modality: str
    seed: int
    job: Job


@dataclass(frozen=True)
class Agenda:
    """What is to be measured for a study, or for a part of it.

    Attributes:
        site: Where.
        study: What.
        rows: The rows that are asked for, without those that are not ours.
        foreign: The rows that are not ours.
        seeds: How many of each row; None: as the study says.
    """

    site: Site
    study: Study
    rows: list[str]
    foreign: list[str]
    seeds: int | None = None

    @property
    def grounds(self) -> list[Ground]:
        """What the columns are measured on."""
        return grounds_of(self.site.scale, self.study.columns)

    @property
    def foundations(self) -> list[Job]:
        """The RGB trackers that have to be made."""
        return foundation_jobs(self.site, self.rows)

    @property
    def sweeps(self) -> list[SweepRun]:
        """Runs of the sweeps that a row's choice needs and nobody has run."""
        if self.site.scale.data:
            return []
        wanted = dict.fromkeys(sweep for row in self.rows for sweep in self.site.plan.rows[row].chosen.values())
        runs = []
        for modality in (ground.name for ground in self.grounds):
            found = {sweep: look(sweep, self.site.scale_name, modality, self.site.out) for sweep in wanted}
            missing = [sweep for sweep, choice in found.items() if choice is None or choice.modality != modality]
            runs += sweep_runs(provisional(self.site), missing, [modality])
        return runs

    def jobs_of(self, row: str, ground: str, *, listing: bool = False) -> list[Job]:
        """The jobs of a row on one ground, one for each seed.

        Args:
            row: Its key.
            ground: Name of the ground.
            listing: Only to be counted and timed: sweeps that it needs need not have been run.
        """
        site = provisional(self.site) if listing else self.site
        count = seeds_of(self.study, site.plan.rows[row], row, self.seeds) if trains(site, row, ground) else range(1)
        return [row_job(site, row, ground, seed) for seed in count]

    def finished(self, row: str, ground: str) -> list[Job]:
        """Those that are done, with the settings of today: what another command left behind before a change does not count."""
        return [job for job in self.jobs_of(row, ground, listing=True) if job.done and not find_differences(job)]

    def row_jobs(self, *, listing: bool = False) -> list[Job]:
        """The jobs of all rows: first all rows with one seed, then with the next."""
        groups = [self.jobs_of(row, g.name, listing=listing) for row in self.rows for g in self.grounds]
        most = max((len(group) for group in groups), default=0)
        return [group[seed] for seed in range(most) for group in groups if seed < len(group)]

    def stages(self) -> list[list[Job]]:
        """Everything, to be counted and timed; what a stage makes, the next one needs."""
        return [self.foundations, [run.job for run in self.sweeps], self.row_jobs(listing=True)]


def foundation_jobs(site: Site, rows: Iterable[str]) -> list[Job]:
    """The RGB trackers that rows start from and that have to be made."""
    bases = dict.fromkeys(site.plan.rows[row].base for row in rows)
    return [job for base in bases if (job := foundation_job(site, base)) is not None]


def plan_study(site: Site, study: Study, only: List[str] = (), seeds: int | None = None) -> Agenda:
    """What a study has to do; on the paper's data sets every row is trained once, as in the paper, unless seeds are given.

    Raises:
        UserError: No such row; or one that was asked for is not ours.
    """
    rows = chosen_rows(site.plan, study, only)
    foreign = [row for row in rows if site.plan.rows[row].needs is not None]
    if only and foreign:
        row = site.plan.rows[foreign[0]]
        raise UserError(f"{row.label} is not ours: {row.needs} (docs/trackers.md). The study shows its published numbers.")
    once = 1 if site.scale.data else None
    return Agenda(site, study, [row for row in rows if row not in foreign], foreign, seeds or once)


def sweep_runs(site: Site, sweeps: Iterable[str], modalities: List[str]) -> list[SweepRun]:
    """All runs of some sweeps: the same number of values and seeds for each.

    Raises:
        UserError: No sweep of that name.
    """
    wanted, known = list(sweeps), site.plan.sweeps
    for name in wanted:
        if name not in known:
            raise UserError(unknown("sweep", name, known))
    return [
        SweepRun(name, value, modality, seed, sweep_job(site, name, value, modality, seed))
        for name in wanted
        for modality in modalities
        for seed in range(site.scale.sweep_seeds)
        for value in site.scale.values.get(name, known[name].values)
    ]


def record_sweeps(site: Site, runs: List[SweepRun]) -> list[Line]:
    """Write what finished runs of sweeps found to the site's own file."""
    lines = []
    for run in runs:
        loss, success = read_validation(run.job)
        lines.append(
            {
                "scale": site.scale_name,
                "sweep": run.sweep,
                "modality": run.modality,
                "value": f"{run.value:g}",
                "seed": str(run.seed),
                "loss": f"{loss:.6g}",
                "SR": f"{success:.6g}",
            }
        )
    if lines:
        merge_sweeps(site.out / FILE, lines)
    return lines


def refuse_stale(jobs: Iterable[Job]) -> None:
    """Refuse folders that were made with other settings.

    Raises:
        UserError: The first of them.
    """
    for job in jobs:
        check_settings(job)
