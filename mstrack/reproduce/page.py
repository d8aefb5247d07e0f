"""A study as one self-contained page in the look of the report: tables, charts, hyper-parameters with their sweeps."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mstrack import __version__
from mstrack.comparison import Group
from mstrack.config import Config
from mstrack.machine import usable_cores
from mstrack.metrics.ope import MEASURES
from mstrack.pictures import HeatMaps, draw_heat_maps
from mstrack.report import draw_scores, format_number, group_scores, open_templates
from mstrack.reproduce.agenda import Agenda
from mstrack.reproduce.costs import Cost
from mstrack.reproduce.drawings import Drawing, Named, draw_courses, draw_momentum, draw_sweeps, find_choices, name_rows
from mstrack.reproduce.files import cost_rows
from mstrack.reproduce.plan import Ground
from mstrack.reproduce.rescoring import report_of, rescore, write_vectors
from mstrack.reproduce.sensitivities import picture_sensitivities
from mstrack.reproduce.table import PRINTED, Table, spelled, summarise
from mstrack.results import write_text


class Part(NamedTuple):
    """What is shown of one ground; the columns are its data sets that the paper prints numbers on, small those besides SR."""

    ground: Ground
    columns: list[str]
    small: list[str]
    heading: str
    seeds: int
    best: dict[str, str]
    drawings: list[Drawing]
    groups: list[Group]
    methods: list[Named]
    sensitivity: list[tuple[str, HeatMaps]]


class Setting(NamedTuple):
    """The learning rates of a row, one for each ground, and its published hyper-parameters."""

    label: str
    rates: list[str]
    published: str


def write_page(
    path: Path, agenda: Agenda, table: Table, costs: Mapping[str, Cost], command: str, notes: Sequence[str]
) -> list[Path]:
    """Write the page, and beside it the vector figures that the study asks for.

    Args:
        path: The page.
        agenda: What was to be done.
        table: What was measured.
        costs: Of the networks, by row.
        command: That made it.
        notes: Sentences below the summary.

    Returns:
        The vector figures.

    Raises:
        UserError: Results that were there have gone, or a file cannot be written.
    """
    vectors: list[Path] = []
    environment = open_templates()
    environment.filters["spelled"] = spelled
    what = "the embedded benchmark stands for the paper's data" if table.synthetic else "the paper's own data sets"
    context = {
        "table": table,
        "subtitle": f"mst reproduce {table.name}: {what}",
        "notes": [*summarise(table), *notes],
        "parts": [_describe(agenda, table, ground, path.with_suffix(""), vectors) for ground in table.grounds],
        "printed": PRINTED,
        "foreign": _list_foreign(table),
        "costs": cost_rows(table, costs) if costs else None,
        "machine": next((cost.machine for cost in costs.values()), ""),
        "grounds": [spelled(ground.name) for ground in table.grounds],
        "settings": list_settings(agenda, table),
        "sweeps": _draw_sweeps(agenda, table),
        "chosen_by": say_choice(agenda, table),
        "provenance": {
            "mstrack": __version__,
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {usable_cores()} cores, {platform.system()}",
            "scale": agenda.site.scale_name,
            "runs": str(agenda.site.out),
            "intervals": "percentile bootstrap over sequences and seeds, 2000 draws; differences are paired by sequence",
        },
        "command": command,
    }
    write_text(path, environment.get_template("reproduce.html.j2").render(context))
    return vectors


def write_sweep_page(path: Path, scale: str, drawings: list[Drawing], rows: list[list[str]], command: str) -> None:
    """Write the curves of sweeps, and which value each chose.

    Args:
        path: The file.
        scale: Where they were run.
        drawings: A chart for each modality.
        rows: Sweep, modality, value and success rate of every run, and the choice.
        command: What makes the page again.
    """
    template = open_templates().get_template("sweep.html.j2")
    write_text(path, template.render(scale=scale, drawings=drawings, rows=rows, command=command))


def list_settings(agenda: Agenda, table: Table) -> list[Setting]:
    """The learning rates that rows run with, by ground."""
    settings = []
    for line in table.lines:
        row = agenda.site.plan.rows[line.key]
        if row.needs is None:
            named = [ground.name for ground in table.grounds]
            jobs = [agenda.finished(line.key, name)[0] if name in line.measured else None for name in named]
            rates = [_say_chosen(job.config, row.chosen) if job is not None and job.train else "-" for job in jobs]
            settings.append(Setting(line.label, rates, row.published or "-"))
    return settings


def _describe(agenda: Agenda, table: Table, ground: Ground, folder: Path, vectors: list[Path]) -> Part:
    measured = [line for line in table.lines if ground.name in line.measured]
    wanted = agenda.study.figures
    best: dict[str, str] = {}
    for name in MEASURES:
        texts = [format_number(line.measured[ground.name].cells[name].mean) for line in measured]
        best[name] = max((text for text in texts if text != "-"), key=float, default="")
    drawings, groups, methods, heat = [], [], [], []
    if measured and ("plots" in wanted or "attributes" in wanted):
        scored = rescore(agenda, table, ground)
        report = report_of(table, scored)
        methods = [Named(method.label) for method in report.methods]
        if "plots" in wanted:
            drawings += [Drawing(figure, methods) for figure in draw_scores(report)]
        if "attributes" in wanted:
            groups = group_scores(report)
        vectors += write_vectors(folder / ground.name, table, scored)
    if agenda.study.curves:
        drawings += draw_courses(agenda, table, ground)
    if "momentum" in wanted and measured:
        drawings += draw_momentum(agenda, table, ground)
    if "sensitivity" in wanted:
        heat = _draw_sensitivity(agenda, table, ground)
    heading = f"RGB + {ground.name}, for {', '.join(map(spelled, ground.columns))}" if table.synthetic else spelled(ground.name)
    seeds = max((line.measured[ground.name].seeds for line in measured), default=0)
    columns = [column for column in ground.columns if any(column in line.published for line in table.lines)]
    printed = [line.published[column].percent for line in table.lines for column in columns if column in line.published]
    small = [name for name in PRINTED[1:] if any(name in percent for percent in printed)]
    return Part(ground, columns, small, heading, seeds, best, drawings, groups, methods, heat)


def _say_chosen(config: Config, chosen: Mapping[str, str]) -> str:
    """The learning rate of a row, and what else was chosen for it."""
    parts = [f"{config.train.lr:.3g}"]
    for key in (key for key in chosen if key != "train.lr"):
        value: Any = config.model_dump()
        for name in key.split("."):
            value = value[name]
        parts.append(f"{key.rpartition('.')[2]} {value:g}")
    return ", ".join(parts)


def _list_foreign(table: Table) -> dict[str, list[str]]:
    """What rows that are not ours need, and which rows those are."""
    found: dict[str, list[str]] = {}
    for line in table.lines:
        if line.needs is not None:
            found.setdefault(line.needs, []).append(line.label)
    return found


def _draw_sensitivity(agenda: Agenda, table: Table, ground: Ground) -> list[tuple[str, HeatMaps]]:
    """Heat maps of the first run of every row that trained a dual-stream network."""
    maps = []
    for line in table.lines:
        row = agenda.site.plan.rows[line.key]
        jobs = agenda.finished(line.key, ground.name)[:1] if row.model == "mst" and row.train else []
        pictures = [picture for job in jobs for picture in picture_sensitivities(job.folder)]
        maps += [(f"{line.label}: {picture.name}", draw_heat_maps(picture.before, picture.after)) for picture in pictures]
    return maps


def _draw_sweeps(agenda: Agenda, table: Table) -> list[Drawing]:
    if not table.synthetic:
        return []
    drawn = [
        draw_sweeps(find_choices(agenda, ground), f"Validation, {ground.name}", name_rows(table, ground))
        for ground in table.grounds
    ]
    return [drawing for part in drawn for drawing in part]


def say_choice(agenda: Agenda, table: Table) -> str:
    """Where learning rates come from, in sentences."""
    if not table.synthetic:
        return (
            "Every row runs with its published hyper-parameters, as far as they are printed; nothing was chosen by its results."
        )
    choices = [
        (ground.name, swept, choice) for ground in table.grounds for swept, choice in find_choices(agenda, ground).items()
    ]
    counts = sorted({(len(choice.points), choice.runs) for _, _, choice in choices})
    budget = " or ".join(f"{values} values of {runs} run{'s' if runs > 1 else ''}" for values, runs in counts)
    edge = sorted({swept.label for _, swept, choice in choices if not choice.inside})
    lent = sorted({swept.label for ground, swept, choice in choices if choice.modality != ground})
    text = f"What a row ran with is the best of a sweep on the validation split, never on test: {budget}. Rows without a sweep"
    text += " of their own share that of their family; a control runs at its family's rate times the mean step of MST."
    if lent:
        text += f" Chosen on another modality: {', '.join(lent)}."
    return text + (f" At an end of the values tried: {', '.join(edge)}." if edge else "")
