"""Checkpoints that know what they are: self-describing safetensors, resume state, import of published files; all atomic."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mstrack.errors import UserError
from mstrack.models import Network, create_model
from mstrack.models.positions import interpolate_positions
from mstrack.models.remap import family_of, identify
from mstrack.published import read_published
from mstrack.registry import MODELS, unknown
from mstrack.tensorfile import read_tensors, write_tensors

FORMAT = "mstrack model 1"
STATE_FORMAT = "mstrack state 1"
GEOMETRY = ("template_size", "search_size", "template_factor", "search_factor", "stride", "modalities")
SHIPPED = Path(__file__).parent / "weights"
LISTED = 40


class _Weights(NamedTuple):
    """What a file holds: tensors, the model they are of (None: it does not say), and where they come from."""

    tensors: dict[str, Tensor]
    name: str | None
    arguments: dict[str, Any]
    provenance: dict[str, Any]


# ---------------------------------------------------------------- models
def save(path: str | Path, model: Network, provenance: Mapping[str, Any], dtype: torch.dtype | None = None) -> None:
    """Save a model so that `load(path)` needs nothing else.

    Args:
        path: The `.safetensors` file; replaced in one step, so that a crash leaves the old or the new one.
        model: A network made by `create_model`.
        provenance: What made it (command, seed, data, date, scores); anything JSON can hold.
        dtype: Store floating-point entries in this type, such as `torch.float16`; None: as they are.

    Raises:
        UserError: The file cannot be written, for example on a full disk; what was there before is intact.
    """
    if not hasattr(model, "name") or not hasattr(model, "arguments"):
        raise ValueError("the model does not know its name and arguments; make it with mstrack.create_model.")
    metadata = {
        "format": FORMAT,
        "name": model.name,
        "arguments": json.dumps(model.arguments),
        "geometry": json.dumps({key: getattr(model, key) for key in GEOMETRY}),
        "provenance": json.dumps(dict(provenance)),
    }
    tensors = model.state_dict()
    if dtype is not None:
        tensors = {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}
    write_tensors(Path(path), tensors, metadata)


def load(path: str | Path, name: str | None = None, **kwargs: Any) -> Network:
    """Load a model, in eval mode, with its `provenance` as an attribute.

    Args:
        path: A `.safetensors` file of ours, a published `.pth` or `.pth.tar` file, or the name of a shipped weight.
        name: The model to build; default: what the file says, or what its keys give away. Another model of the same family
            starts from it as `remap` has it (a dual-stream one from a one-stream checkpoint).
        **kwargs: Arguments of the model, over those in the file (`elimination=True`, `drop_path=0.1`).

    Raises:
        UserError: No such file, not a checkpoint, refused, or not the weights of that model (missing and surplus entries
            are listed).
    """
    file = _find(path)
    weights = _read(file)
    if name is None:
        name = weights.name
        if name is None:
            raise UserError(f"{file} does not say which model it is; give one of: {', '.join(sorted(MODELS))}.")
        if name not in MODELS:
            raise UserError(
                f"{file} is of a model outside the catalogue, and a file cannot name code to run. If you trust '{name}', name"
                f" it yourself: --model {name}, or load(..., name='{name}')."
            )
    published = not file.name.endswith(".safetensors")
    arguments = {**weights.arguments, **kwargs} if published or name == weights.name else kwargs
    try:
        with torch.device("meta"):
            model = create_model(name, **arguments)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    _fill(model, weights, file, assign=True)
    if any(value.is_meta for value in (*model.parameters(), *model.buffers())):
        model = create_model(name, **arguments)
        _fill(model, weights, file)
    model.provenance = weights.provenance
    return model.eval()


def load_into(model: Network, path: str | Path, resize_positions: bool = False) -> dict[str, Any]:
    """Fill an existing model from a checkpoint of it, of the same family, or a published one.

    Args:
        model: The network; its `remap` renames the entries.
        path: As for `load`.
        resize_positions: Interpolate the position embeddings where those of the file are of another grid, such as a
            256-pixel checkpoint in a 384-pixel model.

    Returns:
        The provenance of the checkpoint; the model's own stays as it is.

    Raises:
        UserError: As for `load`.
    """
    file = _find(path)
    weights = _read(file)
    _fill(model, weights, file, resize_positions=resize_positions)
    return weights.provenance


def convert(source: str | Path, target: str | Path, name: str | None = None, **kwargs: Any) -> Network:
    """Turn a published checkpoint into a self-describing one; the model is returned.

    Args:
        source: A published `.pth` or `.pth.tar` file (or anything else that `load` reads).
        target: The `.safetensors` file to write.
        name: As for `load`.
        **kwargs: As for `load`.

    Raises:
        UserError: As for `load` and `save`; or `target` is no `.safetensors` name.
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise UserError(f"{target} should end in .safetensors: that is what convert writes.")
    model = load(source, name, **kwargs)
    save(target, model, model.provenance)
    return model


def fill(model: Network, tensors: Mapping[str, Tensor], assign: bool = False) -> None:
    """Load entries under the model's own names; all of them, and nothing else.

    Args:
        model: The network.
        tensors: Its entries; those of another floating-point type are converted. The counters of batch norms may lack.
        assign: Let the tensors become the parameters instead of copying into them (for a model on the meta device).

    Raises:
        UserError: Entries are missing, surplus or of another shape; the message lists them.
    """
    expected = model.state_dict()
    missing = [key for key in expected if key not in tensors and not key.endswith("num_batches_tracked")]
    surplus = [key for key in tensors if key not in expected]
    other = [
        f"{key} ({_shape(value)}, expected {_shape(expected[key])})"
        for key, value in tensors.items()
        if key in expected and value.shape != expected[key].shape
    ]
    faults = [(missing, "missing"), (surplus, "surplus"), (other, "of another shape")]
    if any(keys for keys, _ in faults):
        found = "; ".join(f"{len(keys)} {fault}: {_list(keys)}" for keys, fault in faults if keys)
        raise UserError(f"these are not the weights of model '{getattr(model, 'name', type(model).__name__)}': {found}.")
    model.load_state_dict({key: value.to(expected[key].dtype) for key, value in tensors.items()}, assign=assign)


def _fill(model: Network, weights: _Weights, file: Path, assign: bool = False, resize_positions: bool = False) -> None:
    """Rename a file's entries for the model and fill it; errors name the file and what it is."""
    try:
        is_ours = file.suffix == ".safetensors" and weights.name is not None
        same = is_ours and weights.name == getattr(model, "name", None)  # an error then says which entries differ
        tensors = dict(weights.tensors) if same else model.remap(weights.tensors)
        if resize_positions:
            for key, value in model.state_dict().items():
                if key.startswith("position_") and key in tensors and tensors[key].shape != value.shape:
                    tensors[key] = interpolate_positions(tensors[key].float(), round(value.shape[1] ** 0.5))
        fill(model, tensors, assign)
    except UserError as error:
        what = f" (model '{weights.name}')" if weights.name else ""
        raise UserError(f"{file}{what}: {error}") from error


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "scalar"


def _list(keys: list[str]) -> str:
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return ", ".join(keys[:LISTED]) + more


def _find(path: str | Path) -> Path:
    """A file, or the file of a shipped weight."""
    if Path(path).is_file():
        return Path(path)
    shipped = {file.stem: file for file in SHIPPED.glob("*.safetensors")}
    if str(path) in shipped:
        return shipped[str(path)]
    raise UserError(f"there is no checkpoint file {path}; and as a shipped weight: {unknown('weight', str(path), shipped)}")


def describe_file(path: str | Path, provenance: Mapping[str, Any]) -> dict[str, str]:
    """Which file a training started from.

    Args:
        path: As for `load`.
        provenance: What the file says of itself; of a converted one, the published file is named too.
    """
    source = {f"source{end}": provenance[key] for key, end in (("source", ""), ("sha256", "_sha256")) if key in provenance}
    return {"weights": str(path), "sha256": _hash(_find(path)), **source}


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(file: Path) -> _Weights:
    """Read a file of ours, or a published one."""
    if file.suffix != ".safetensors":
        tensors = read_published(file)
        name, arguments = identify(tensors)
        return _Weights(tensors, name, arguments, {"source": file.name, "sha256": _hash(file), "family": family_of(tensors)})
    metadata, tensors = read_tensors(file)
    made = metadata.get("format")
    if made is None:
        return _Weights(tensors, None, {}, {})
    if made != FORMAT:
        raise UserError(f"{file} is of format '{made}', expected '{FORMAT}': the state of a run, or of a newer mstrack.")
    try:
        name = metadata["name"]
        arguments, provenance = (json.loads(metadata[key]) for key in ("arguments", "provenance"))
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: its header does not say what it is ({type(error).__name__}: {error}).") from error
    if not isinstance(arguments, dict) or not _is_provenance(provenance):
        raise UserError(f"{file} is damaged: its header says in a wrong form what it is, or what it was trained on.")
    return _Weights(tensors, name, arguments, provenance)


def _is_provenance(found: Any) -> bool:
    """Whether what a header says of the training has the form that `provenance.py` reads."""
    for section in ("config", "data"):
        if not isinstance(found, dict):
            return False
        found = found.get(section, {})
    if not isinstance(found, dict) or not isinstance(found.get("train", []), list):
        return False
    texts = (found.get("modality"), found.get("encoding"))
    return all(text is None or isinstance(text, str) for text in texts) and all(
        isinstance(source, dict) and isinstance(source.get("arguments", {}), dict) for source in found.get("train", [])
    )


# ---------------------------------------------------------------- the state of a run
def save_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Save what a run needs to go on: safetensors for the tensors, JSON for the rest; no pickle.

    Args:
        path: The file; replaced in one step, as by `save`.
        state: Dicts, lists and tuples of tensors, numbers, text, booleans and None, nested as you like; keys are text or
            numbers.

    Raises:
        TypeError: Something else is in it.
        UserError: The file cannot be written; what was there before is intact.
    """
    tensors: list[Tensor] = []
    tree = _encode(state, tensors)
    metadata = {"format": STATE_FORMAT, "tree": json.dumps(tree)}
    write_tensors(Path(path), {str(index): tensor for index, tensor in enumerate(tensors)}, metadata)


def load_state(path: str | Path) -> dict[str, Any]:
    """Read what `save_state` wrote, equal in every bit and type; tensors on the CPU.

    Raises:
        UserError: Not such a file.
    """
    metadata, tensors = read_tensors(Path(path))
    if metadata.get("format") != STATE_FORMAT:
        raise UserError(f"{path} is not the state of a run ({metadata.get('format', 'no format')}; expected {STATE_FORMAT}).")
    state: dict[str, Any] = _decode(json.loads(metadata["tree"]), tensors)
    return state


def _encode(value: Any, tensors: list[Tensor]) -> Any:
    """A JSON tree with the tensors taken out; containers become one-entry objects that say their kind."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, Mapping):
        return {"dict": [[_encode(key, tensors), _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list" if isinstance(value, list) else "tuple": [_encode(item, tensors) for item in value]}
    raise TypeError(f"the state of a run cannot hold a {type(value).__name__}; expected tensors, numbers, text, lists, dicts.")


def _decode(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[str(content)]
    if kind == "dict":
        return {_decode(key, tensors): _decode(item, tensors) for key, item in content}
    items = [_decode(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
