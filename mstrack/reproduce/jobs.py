"""One training and one evaluation: from a row, a ground and a seed to a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mstrack.config import Config, load_config, read_recipe
from mstrack.registry import resolve
from mstrack.reproduce.plan import Plan, Row, Scale, modality_of
from mstrack.reproduce.rates import choose
from mstrack.reproduce.weights import weights_file
from mstrack.tuning import effective_rate

SWEEP_SEED = 100
"""The first seed of a sweep's runs: never one that a row is trained with."""


@dataclass(frozen=True)
class Site:
    """Where rows are measured.

    Attributes:
        plan: What there is.
        scale_name: How large, on what data.
        out: Folder of this scale's runs.
        data_root: Where the paper's data sets are looked for.
        weights: Folder of published weights, see `weights.weights_folder`.
        provisional: Take any value of a sweep that has not been run: to say what there is to do, not to do it.
    """

    plan: Plan
    scale_name: str
    out: Path
    data_root: Path | None = None
    weights: Path | None = None
    provisional: bool = False

    @property
    def scale(self) -> Scale:
        """What the name stands for."""
        return self.plan.scales[self.scale_name]


@dataclass(frozen=True)
class Job:
    """What one process does: train (or take the foundation as it is), then track and score, or validate.

    Attributes:
        folder: Where all of it lies.
        recipe: What `load_config` starts from.
        overrides: `key=value` over it.
        train: Whether it trains.
        tests: Arguments of `evaluate`; None where validation says enough (a sweep) or nothing is asked (a foundation).
    """

    folder: Path
    recipe: str
    overrides: tuple[str, ...]
    train: bool = True
    tests: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.folder.name

    @property
    def config(self) -> Config:
        """The whole configuration."""
        return load_config(self.recipe, self.overrides)

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        if self.tests is None:
            return (self.folder / "model.safetensors").is_file()
        folders = [self.folder / "results", *(self.folder / "curve" / f"{epoch:04d}" for epoch in self.kept)]
        return all((folder / "scores.json").is_file() for folder in folders)

    @property
    def kept(self) -> list[int]:
        """Epochs after which a checkpoint is kept, to be tracked with too."""
        if not any(text.startswith("run.keep=") for text in self.overrides):
            return []
        config = self.config
        return list(range(config.run.keep, config.train.epochs + 1, config.run.keep)) if config.run.keep else []


def foundation_job(site: Site, base: str) -> Job | None:
    """The making of an RGB tracker to start from; None where it is somebody's weights."""
    foundation = site.scale.foundations[base]
    if foundation.recipe is None:
        return None
    folder = site.out / f"foundation-{base}"
    changes = {**foundation.changes}
    changes["model.arguments"] = {**changes.get("model.arguments", {}), **foundation.arguments}
    return Job(folder, foundation.recipe, (*_texts(changes), f"run.out={folder}"))


def foundation_weights(site: Site, base: str) -> str:
    """The checkpoint to start from."""
    weights = site.scale.foundations[base].weights
    if weights is None:
        return str(site.out / f"foundation-{base}" / "model.safetensors")
    return str(weights_file(weights, site.weights)) if site.scale.data else weights


def row_job(site: Site, key: str, ground: str, seed: int) -> Job:
    """A row of a study on one ground, with one seed: a modality of the embedded benchmark, or a data set of the paper."""
    row, scale = site.plan.rows[key], site.scale
    modality = modality_of(scale, ground)
    tests: dict[str, Any] = {"on": "synthetic", "modality": modality, "arguments": dict(scale.test)}
    if scale.data:
        tests = {"on": ground, "split": scale.data[ground].test, "modality": modality, "data_root": site.data_root}
    trained = trains(site, key, ground)
    folder = site.out / (f"{key}-{ground}-{seed}" if trained else f"{key}-{ground}")
    overrides = _overrides(site, key, ground, seed)
    if scale.data and ground in row.released:
        overrides.append(f"model.weights={weights_file(row.released[ground], site.weights)}")
    return Job(folder, scale.recipe, (*overrides, f"run.out={folder}"), trained, tests)


def trains(site: Site, key: str, ground: str) -> bool:
    """Whether a row trains there, or is tracked with as it starts or as it was published."""
    row = site.plan.rows[key]
    return row.train and not (site.scale.data and ground in row.released)


def sweep_job(site: Site, sweep_name: str, value: float, modality: str, seed: int) -> Job:
    """A run of a sweep: as the row, with one key at one value, and a look at the validation split at its end."""
    sweep = site.plan.sweeps[sweep_name]
    overrides = _overrides(site, sweep.row, modality, SWEEP_SEED + seed, without=sweep.key)
    folder = site.out / "sweep" / f"{sweep_name}-{value:g}-{modality}-{seed}"
    last = (*_texts(site.scale.validation), f"{sweep.key}={value!r}", f"run.out={folder}")
    return Job(folder, site.scale.recipe, (*overrides, *last))


# ---------------------------------------------------------------- the configuration of a row
def network_of(site: Site, key: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the network of a row."""
    row, scale = site.plan.rows[key], site.scale
    given = [scale.arguments.get("*", {}), scale.arguments.get(row.model, {}), scale.foundations[row.base].arguments]
    given += [part.get("model.arguments", {}) for part in (row.changes, *([row.paper] if scale.data else []))]
    arguments = {name: value for part in given for name, value in part.items()}
    return f"{row.model}-{scale.sizes.get(row.base, scale.size)}", arguments


def _overrides(site: Site, key: str, ground: str, seed: int, without: str | None = None) -> list[str]:
    """Scale, then row, then what was chosen on the validation split or printed in the paper."""
    row, scale = site.plan.rows[key], site.scale
    name, arguments = network_of(site, key)
    changes: dict[str, Any] = {
        "model.name": name,
        "model.arguments": arguments,
        "model.weights": foundation_weights(site, row.base),
        "data.modality": modality_of(scale, ground),
        "train.seed": seed,
        **_with_seed(scale.changes, seed),
        **scale.foundations[row.base].training,
    }
    if scale.data:
        place = scale.data[ground]
        min_size = row.min_size.get(ground, place.min_size)
        changes["data.train"] = [{"name": ground, "split": place.train, "min_size": min_size}]
        changes["run.data_root"] = None if site.data_root is None else str(site.data_root)
        changes |= scale.special.get(row.model, {}).get(ground, {})
    given = [row.changes, *([row.paper, row.paper_on.get(ground, {})] if scale.data else [])]
    changes |= {name: value for part in given for name, value in part.items() if name != "model.arguments"}
    if "tuning.name" in row.changes:
        changes.setdefault("tuning.arguments", {})  # not those that the recipe has for another method
    if not row.train:
        return _texts(changes)
    if scale.data:
        changes["train.lr"] = _find(scale, changes, "train.lr") * _factor(row)
        return _texts(changes)
    if row.epochs != 1:
        changes["train.epochs"] = round(_find(scale, changes, "train.epochs") * row.epochs)
    for name, sweep in row.chosen.items():
        if name != without:
            value = choose(site.plan, sweep, site.scale_name, ground, site.out, site.provisional)
            changes[name] = value * (_factor(row) if name == "train.lr" else 1)
    return _texts(changes)


def _factor(row: Row) -> float:
    return row.hot * (effective_rate(resolve("tunings", "mst")()) if row.scaled else 1.0)


def _find(scale: Scale, changes: Mapping[str, Any], key: str) -> Any:
    """A value as changed, or as the recipe has it."""
    section, name = key.split(".")
    return changes.get(key, read_recipe(scale.recipe)[section].get(name))


def _with_seed(tree: Any, seed: int) -> Any:
    """A nested structure with the text `{seed}` replaced by a number that depends on the seed."""
    if isinstance(tree, Mapping):
        return {key: _with_seed(value, seed) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_with_seed(value, seed) for value in tree]
    return 1000 + seed if tree == "{seed}" else tree


def _texts(changes: Mapping[str, Any]) -> list[str]:
    flow: dict[str, Any] = {"default_flow_style": True, "width": 10**6, "sort_keys": False}
    values = {
        key: yaml.safe_dump(value, **flow).removesuffix("\n").removesuffix("...").strip() for key, value in changes.items()
    }
    return [f"{key}={value}" for key, value in values.items()]


def provisional(site: Site) -> Site:
    """The same site, whose jobs can be listed before its sweeps are run."""
    return replace(site, provisional=True)
