"""What there is to reproduce, from YAML: rows (systems), studies (tables and figures), scales (how large, on what data)."""

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field

from mstrack.config import Section
from mstrack.errors import UserError
from mstrack.registry import unknown

Modality = Literal["event", "depth", "thermal"]
Figure = Literal["plots", "attributes", "sensitivity", "momentum"]
"""Success and precision plots; scores by attribute; sensitivities before and after; scores over momentum coefficients."""


class Row(Section):
    """A system: a network, how it is tuned, and where its hyper-parameters come from."""

    label: str
    model: str = Field(description="family of models: mst, ostrack, vipt, vipt-shallow, sdstrack, protrack, ceutrack")
    base: Literal["ostrack", "droptrack"] = Field("ostrack", description="the RGB tracker that it starts from")
    train: bool = Field(True, description="whether it trains, or is tracked with as it starts")
    chosen: dict[str, str] = Field({}, description="key of the configuration: the sweep whose best value it takes")
    scaled: bool = Field(False, description="multiply the learning rate with the mean step of MST: the control of a comparison")
    hot: float = Field(1.0, gt=0, description="multiply the learning rate with this")
    changes: dict[str, Any] = Field({}, description="dotted key: value, over the scale's recipe")
    epochs: float = Field(1.0, gt=0, description="multiply the length of the training with this, on the embedded benchmark")
    needs: str | None = Field(None, description="why it cannot be trained here, and what to do instead")
    published: str | None = Field(None, description="its published hyper-parameters, in words")
    paper: dict[str, Any] = Field({}, description="dotted key: value, on the paper's own data sets")
    paper_on: dict[str, dict[str, Any]] = Field({}, description="the same for one data set")
    min_size: dict[str, float] = Field({}, description="data set: pixels, in place of the data set's own `min_size`")
    released: dict[str, str] = Field({}, description="data set: published checkpoint that is tracked with instead of training")


class Sweep(Section):
    """A hyper-parameter that is chosen on the validation split: at one scale about as many runs for every method."""

    row: str
    key: str = "train.lr"
    values: tuple[float, ...] = Field(min_length=2)


class Study(Section):
    """A table or a figure."""

    title: str
    scale: str = Field("tiny", description="on the embedded benchmark")
    real: bool = Field(True, description="whether it can be run on the paper's data too")
    tables: tuple[int, ...] = Field((), description="the tables of the paper that hold the published numbers")
    columns: tuple[str, ...] = Field(description="data sets of the paper")
    rows: dict[str, str | None] = Field(description="row: its name in the published table")
    seeds: int = Field(3, ge=1)
    more_seeds: dict[str, int] = Field({}, description="rows that get more")
    baseline: str | None = Field(None, description="the row that the others are compared with")
    against: dict[str, str] = Field({}, description="row: another row that it is compared with")
    curves: bool = Field(False, description="whether test scores over the course of training are wanted")
    figures: tuple[Figure, ...] = Field((), description="what is drawn besides the table")
    costs: bool = Field(False, description="whether parameters, operations and speed of the full-size networks are wanted")
    notes: tuple[str, ...] = Field((), description="sentences that a reader must know")


class Foundation(Section):
    """An RGB tracker to start from: a weight, or the recipe that makes one."""

    weights: str | None = None
    recipe: str | None = None
    changes: dict[str, Any] = Field({}, description="dotted key: value, over its recipe")
    arguments: dict[str, Any] = Field({}, description="arguments of every model that starts from it, and its own")
    training: dict[str, Any] = Field({}, description="dotted key: value, for every row that starts from it")


class Place(Section):
    """A data set of the paper: its second modality, and the splits that the paper trains and tests on."""

    modality: Modality
    train: str
    test: str
    source: str = Field(description="where it is published")
    min_size: float = Field(0.0, ge=0, description="pixels: targets are drawn whose width and height are both above")


class Scale(Section):
    """Size of the networks, and the data they are trained, chosen and tested on."""

    recipe: str
    size: str = Field(description="the part of a model's name after its family")
    sizes: dict[str, str] = Field({}, description="the same for a base of its own size, such as droptrack: b384")
    arguments: dict[str, dict[str, Any]] = Field({}, description="family, or * for all: arguments of its model")
    foundations: dict[str, Foundation]
    changes: dict[str, Any] = Field({}, description="dotted key: value; {seed} is replaced")
    test: dict[str, Any] = Field({}, description="arguments of the data set that is tested on")
    validation: dict[str, Any] = Field({}, description="dotted key: value, for the runs of a sweep")
    sweep_seeds: int = Field(1, ge=1)
    values: dict[str, tuple[float, ...]] = Field({}, description="sweep: values that are tried in place of its own")
    data: dict[str, Place] = Field({}, description="the paper's own data sets; none: the embedded benchmark stands for them")
    special: dict[str, dict[str, dict[str, Any]]] = Field({}, description="family: data set: dotted key: value")


class Plan(Section):
    """All of it."""

    rows: dict[str, Row]
    sweeps: dict[str, Sweep]
    studies: dict[str, Study]
    scales: dict[str, Scale]


class Ground(NamedTuple):
    """What rows are trained and tested on: a data set, or a modality of the embedded benchmark, and what it stands for."""

    name: str
    columns: tuple[str, ...]


PAPER = "paper"
"""The scale of the paper: its own sizes, data sets and recipe."""
MODALITIES: dict[str, Modality] = {
    "fe108": "event",
    "visevent": "event",
    "coesot": "event",
    "depthtrack": "depth",
    "lasher": "thermal",
}
"""What stands for each data set of the paper on the embedded benchmark."""


@cache
def read_plan() -> Plan:
    """The committed plan; every name in it is checked."""
    folder = resources.files("mstrack") / "reproduce"
    plan = Plan.model_validate({name: yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in Plan.model_fields})
    for name, study in plan.studies.items():
        strange = [
            *(set(study.rows) - set(plan.rows)),
            *(set(study.columns) - set(MODALITIES)),
            *({study.scale} - set(plan.scales)),
        ]
        named = (*study.more_seeds, *study.against, *study.against.values(), *([study.baseline] if study.baseline else ()))
        strange += [row for row in named if row not in study.rows]
        chosen = [sweep for row in study.rows if row in plan.rows for sweep in plan.rows[row].chosen.values()]
        strange += [sweep for sweep in chosen if sweep not in plan.sweeps]
        if strange:
            raise ValueError(f"study '{name}' names what there is not: {', '.join(strange)}")
    return plan


def find_study(plan: Plan, name: str) -> Study:
    """A study by name.

    Raises:
        UserError: There is none of that name; lists them.
    """
    if name not in plan.studies:
        raise UserError(unknown("study", name, plan.studies))
    return plan.studies[name]


def chosen_rows(plan: Plan, study: Study, only: Sequence[str] = ()) -> list[str]:
    """The rows of a study, or those that are asked for by their keys, labels or published names, whatever the case.

    Raises:
        UserError: The study has no such row.
    """
    if not only:
        return list(study.rows)
    known = {
        alias.lower(): key for key, printed in study.rows.items() for alias in (printed, plan.rows[key].label, key) if alias
    }
    for name in only:
        if name.lower() not in known:
            raise UserError(unknown("row", name, study.rows))
    asked = {known[name.lower()] for name in only}
    return [key for key in study.rows if key in asked]


def grounds_of(scale: Scale, columns: Iterable[str]) -> list[Ground]:
    """What the columns of a study are measured on, in their order; several data sets may share a modality."""
    found: dict[str, tuple[str, ...]] = {}
    for column in columns:
        name = column if scale.data else MODALITIES[column]
        found[name] = (*found.get(name, ()), column)
    return [Ground(name, stands_for) for name, stands_for in found.items()]


def modality_of(scale: Scale, ground: str) -> str:
    """The second modality there."""
    return scale.data[ground].modality if scale.data else ground


def draws_data(scale: Scale) -> bool:
    """Whether the seed of a run draws its training sequences too, the same for all rows."""
    return "{seed}" in str(scale.changes)


def seeds_of(study: Study, row: Row, key: str, seeds: int | None) -> range:
    """The seeds of a row: those asked for, or those of the study; one where nothing trains."""
    if not row.train:
        return range(1)
    return range(seeds or study.more_seeds.get(key, study.seeds))
