"""What a run is: five checked sections, read from a YAML recipe and `key=value` overrides. Nothing has a default elsewhere."""

import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mstrack.errors import UserError
from mstrack.registry import unknown
from mstrack.yamltext import parse_yaml

Folder = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]  # noqa: PTH111 - never raises
"""A folder in a recipe: a leading `~` is the home folder, for no shell has read it."""


class Section(BaseModel):
    """A part of a configuration: read-only, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Section):
    """The network and where its weights come from."""

    name: str = Field(description="a name of `mst list models`, or module:object")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the constructor")
    weights: str | None = Field(None, description="checkpoint file or the name of a shipped weight; none: random weights")


class Source(Section):
    """Sequences of one dataset."""

    name: str = Field(description="a name of `mst list datasets`, module:function, or a folder of your own data")
    split: str = Field(description="which of the dataset's splits")
    root: Folder | None = Field(None, description="its folder; none: it is looked for below run.data_root")
    weight: float = Field(1.0, gt=0, description="how often it is drawn, relative to the other sources")
    min_size: float = Field(0.0, ge=0, description="pixels; a target is drawn where its width and height are both above")
    arguments: dict[str, Any] = Field({}, description="further keyword arguments of the dataset function")


class Jitter(Section):
    """Random displacement of the box that a crop is taken around (OSTrack's centre and scale jitter)."""

    centre: float = Field(0.0, ge=0, description="range of the displacement, in target sizes: half of it to either side")
    scale: float = Field(0.0, ge=0, description="standard deviation of the logarithm of the size factor")


class DataConfig(Section):
    """Which sequences are read, how pairs are drawn from them, and how they are varied."""

    modality: Literal["rgb", "event", "depth", "thermal"] = Field(description="the second modality")
    encoding: str | None = Field(None, description="what its files become: depth jet, inverse, normals; thermal stored, grey")
    train: tuple[Source, ...] = Field(min_length=1, description="sources of training pairs")
    val: tuple[Source, ...] = Field((), description="sources of validation pairs and clips; never a test split")
    max_gap: int = Field(200, ge=1, description="largest distance of template and search frame")
    min_frames: int = Field(20, ge=2, description="shorter videos are left out; stills, of one frame, are not")
    missing: Literal["error", "zero", "copy", "last"] = Field(
        "error",
        description="a frame without its second modality: not drawn, with a warning; zeros; colours; its last earlier frame",
    )
    reject_padding: bool = Field(False, description="draw again where a crop is all padding, as OSTrack does")
    template_jitter: Jitter = Jitter()
    search_jitter: Jitter = Jitter(centre=3.0, scale=0.25)
    grayscale: float = Field(0.05, ge=0, le=1, description="probability that the colour image turns grey, in both crops")
    grayscale_redraw: bool = Field(
        False, description="a defect of ViPT and SDSTrack, to reproduce them: where grey is drawn, the sample is drawn again"
    )
    flip: float = Field(0.5, ge=0, le=1, description="probability of a mirror image of both crops")
    independent_flip: float = Field(
        0.0, ge=0, le=1, description="the same for each crop on its own: 0.5 is a defect of the published trackers"
    )
    published_flip: bool = Field(False, description="there the box goes to 1 - x - w, as published: a pixel beside its pixels")
    brightness: float = Field(0.2, ge=0, lt=1, description="factor in 1 +- this, one for both modalities of a crop")
    photometric: float = Field(0.0, ge=0, lt=1, description="contrast and brightness in 1 +- this, each modality its own")
    modality_dropout: float = Field(0.0, ge=0, le=1, description="probability that a pair loses one of its modalities")
    scaled_decode: bool = Field(
        True, description="decode JPEG at 1/2, 1/4 or 1/8 where a crop shrinks as much anyway (and cache is 0)"
    )
    crops: Folder | None = Field(None, description="folder of a cache made by `mst data cache`; none: the dataset's own files")
    cache: float = Field(
        0.0, ge=0, description="GB of decoded frames that each loading process keeps: for data that fits there; 0: none"
    )


class TuningConfig(Section):
    """The tuning method and which parameters it moves."""

    name: str = Field("full", description="a name of `mst list tunings`, or module:class")
    arguments: dict[str, Any] = Field({}, description="keyword arguments of the method")
    parameters: dict[str, float] | None = Field(
        None,
        description="name pattern: learning-rate factor, 0 freezes; the first match counts, all must match; none: what the"
        " tracker's own paper trains",
    )


class LossWeights(Section):
    """Weights of the loss terms (OSTrack's)."""

    focal: float = 1.0
    giou: float = 2.0
    l1: float = 5.0


class TrainConfig(Section):
    """The optimisation. `batch` is the global batch: over all processes and accumulated steps."""

    lr: float = Field(gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    betas: tuple[float, float] | None = Field(None, description="of AdamW; none: what the tuning method asks for")
    epochs: int = Field(ge=1)
    samples: int = Field(ge=1, le=10**12, description="training pairs in an epoch")
    batch: int = Field(ge=1, description="pairs in an optimizer step, over all processes and parts")
    accumulate: int = Field(1, ge=1, description="parts that a process's share of the batch is computed in")
    schedule: Literal["step", "cosine"] = Field(
        "step", description="of the rate: `step`, constant but for drop_epoch; `cosine`, down to 0"
    )
    warmup: int = Field(0, ge=0, description="optimizer steps of linear warm-up")
    drop_epoch: int | None = Field(None, ge=1, description="of `step`: epochs after which the rate is multiplied; none: never")
    drop_factor: float = Field(0.1, gt=0, description="of `step`: by this")
    clip: float = Field(0.1, gt=0, description="largest norm of the whole gradient")
    losses: LossWeights = LossWeights()
    box_at: Literal["peak", "target"] = Field("peak", description="cell whose box enters the loss: predicted or true")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of products; docs/speed.md says where bf16 pays")
    seed: int = Field(0, ge=0, lt=2**63)
    validate_every: int = Field(1, ge=1, description="epochs between validations (and after the last)")
    val_samples: int = Field(1000, ge=0, description="validation pairs")
    val_clips: int = Field(0, ge=0, description="validation sequences that are tracked for a success rate")
    val_frames: int = Field(20, ge=2, description="frames of each such clip")


class RunConfig(Section):
    """Where and how it runs; nothing here changes what is computed, `device` and `compile` at most the rounding."""

    out: Folder = Field(Path("runs/unnamed"), description="folder of the run")
    data_root: Folder | None = Field(None, description="where datasets are looked for; none: $MST_DATA, or ./data")
    device: str = Field("auto", description="cpu, cuda, cuda:1, or auto")
    workers: int = Field(2, ge=0, description="loading processes per training process; 0: none")
    save_every: int = Field(500, ge=1, description="optimizer steps between saved states")
    keep: int = Field(0, ge=0, description="epochs between checkpoints that stay, in kept/NUMBER.safetensors; 0: none stays")
    log_every: int = Field(20, ge=1, description="optimizer steps between log lines, where the device is waited for")
    tensorboard: bool = Field(True, description="write the curves for TensorBoard too")
    checkpointing: bool = Field(
        False, description="keep only the input of each block, and compute it again in the backward pass: slower, less memory"
    )
    compile: bool = Field(
        False, description="compile the blocks for the device: minutes at the start, then faster on a GPU; rounds differently"
    )
    graph: bool = Field(
        False, description="record the forward and backward pass as a CUDA graph: about twice as fast on a GPU, and only there"
    )
    timeout: float = Field(10.0, gt=0, description="minutes that a process waits for the others before it gives up")


class Config(Section):
    """A whole run."""

    model: ModelConfig
    data: DataConfig
    tuning: TuningConfig = TuningConfig()
    train: TrainConfig
    run: RunConfig = RunConfig()


def load_config(recipe: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> Config:
    """Defaults < recipe < overrides, checked.

    Args:
        recipe: A YAML file, the name of a shipped recipe (`mst-tiny-thermal`), or a mapping.
        overrides: `section.key=value`, the value in YAML. Another `tuning.name` than the recipe's takes none of the recipe's
            `tuning.arguments`: they are another method's.

    Raises:
        UserError: Every unknown key with its nearest name, every missing key and wrong value, with dotted keys.
    """
    tree = read_recipe(recipe)
    method = _method(tree)
    for text in sorted(overrides, key=lambda text: not _names_method(text)):
        _override(tree, text)
        if _names_method(text) and _method(tree) != method:
            tree["tuning"].pop("arguments", None)
    return check_config(tree, source=str(recipe) if isinstance(recipe, (str, Path)) else "configuration")


def check_config(tree: Mapping[str, Any], source: str = "configuration") -> Config:
    """Build a `Config` from nested mappings; all errors at once."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        # An entry that is wrong also makes pydantic call its list too short: that is no problem of its own.
        problems = [_explain(p) for p in error.errors() if not (p["type"] == "too_short" and p["input"])]
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(f"{source}: {len(problems)} problem(s){listed}") from error


def dump_config(config: Config) -> str:
    """The configuration as YAML that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    folder = resources.files("mstrack") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def summarise_recipe(name: str) -> str:
    """What a shipped recipe is, or the shipped weight that it made: the first line of its header."""
    text = (resources.files("mstrack") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    return text.partition("\n")[0].lstrip("# ").rstrip(":.") + "."


def read_recipe(recipe: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as nested dictionaries, unchecked."""
    if isinstance(recipe, Mapping):
        return {key: _plain(value) for key, value in recipe.items()}
    path = Path(recipe)
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else _shipped_recipe(path)
    except OSError as error:
        raise UserError(f"recipe {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"recipe {path} is not YAML: {error}") from error
    tree = parse_yaml(text, f"recipe {path}")
    if not isinstance(tree, dict):
        raise UserError(f"recipe {path} holds {type(tree).__name__}, expected the sections {_names(Config)}.")
    return tree


def _plain(value: Any) -> Any:
    """A copy of what a mapping holds, of the types that YAML knows: dictionaries, lists, and text for paths."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


def _shipped_recipe(path: Path) -> str:
    name = path.name.removesuffix(".yaml")
    if name not in recipe_names():
        raise UserError(f"no file {path}, and " + unknown("recipe", name, recipe_names()))
    return (resources.files("mstrack") / "recipes" / f"{name}.yaml").read_text()


def parse_pairs(texts: Iterable[str]) -> dict[str, Any]:
    """`key=value` texts as a mapping, the values in YAML.

    Raises:
        UserError: A text that is not of that form.
    """
    tree: dict[str, Any] = {}
    for text in texts:
        _override(tree, text)
    return tree


def _names_method(text: str) -> bool:
    """Whether an override says which tuning method; those come first."""
    return text.partition("=")[0].strip() == "tuning.name"


def _method(tree: Mapping[str, Any]) -> Any:
    """The tuning method that an unchecked tree names."""
    tuning = tree.get("tuning")
    return tuning.get("name") if isinstance(tuning, dict) else None


def _override(tree: dict[str, Any], text: str) -> None:
    """Put one `section.key=value` into the tree."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"override '{text}' is not of the form section.key=value, for example train.lr=3e-4.")
    parsed = parse_yaml(value, f"override '{text}': the value")
    *parents, last = key.strip().split(".")
    node: Any = tree
    try:
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(node, list):
            node[int(last)] = parsed
        else:
            node[last] = parsed
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"override '{text}': '{key}' leads through a value that has no such part.") from error


def _explain(problem: Any) -> str:
    """One validation problem in a line: dotted key, what is wrong, the nearest name for an unknown key."""
    location = problem["loc"]
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        parent = ".".join(str(part) for part in location[:-1])
        known = _fields_at(location[:-1])
        return f"{key}: " + unknown(f"key of {parent or 'a recipe'}", str(location[-1]), known)
    if problem["type"] == "missing":
        return f"{key}: missing, expected by every recipe."
    return f"{key}: {problem['msg']}, given {problem['input']!r}."


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    """Field names of the section at a location of an error."""
    section: Any = Config
    for part in location:
        if isinstance(part, str) and part in section.model_fields:
            section = section_of(section.model_fields[part].annotation) or section
    return list(section.model_fields)


def section_of(annotation: Any) -> Any:
    """The section that a field holds, or several of; None where it holds none."""
    return next((a for a in (annotation, *get_args(annotation)) if _is_section(a)), None)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _names(section: type[Section]) -> str:
    return ", ".join(section.model_fields)
