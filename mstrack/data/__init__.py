"""Datasets as lists of `Sequence`; training pairs."""

import dataclasses
import inspect
from collections.abc import Mapping
from collections.abc import Sequence as List
from pathlib import Path
from typing import Any

from mstrack.data.images import check_encoding
from mstrack.data.roots import find_root, is_own
from mstrack.data.sequence import Frame, Sequence
from mstrack.data.splits import check_split
from mstrack.errors import UserError
from mstrack.registry import DATASETS, resolve

__all__ = ["Frame", "Sequence", "arguments_of", "load_sequences", "modality_to_read"]

OWN = "own"
"""The dataset that reads a user's own folder."""


def arguments_of(name: str) -> list[str]:
    """The names of the arguments that a dataset function takes besides root and split; see `load_sequences` for the name."""
    return list(inspect.signature(resolve("datasets", _function_name(name))).parameters)[2:]


def modality_to_read(name: str, root: Path | None, trained: str) -> str | None:
    """What to ask a dataset for where nobody names a modality: the one that was trained with, if the data do not say theirs."""
    from mstrack.data.own import read_description

    own = _function_name(name) == OWN
    place = Path(name) if own and name != OWN else root
    described = read_description(place) is not None if own and place is not None else "modality" not in arguments_of(name)
    return None if described else trained


def _function_name(name: str) -> str:
    return OWN if is_own(name) else name


def load_sequences(
    name: str,
    split: str,
    root: Path | None = None,
    modality: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    encoding: str | None = None,
    data_root: Path | None = None,
) -> List[Sequence]:
    """The sequences of one split of a dataset.

    Args:
        name: A name of `mst list datasets`, `module:function`, or a folder of your own data (`mst data init` makes one).
        split: One of the dataset's splits.
        root: Its folder; None: it is looked for, see `roots.py` (the embedded benchmark and functions of your own are given
            None).
        modality: The second modality, for datasets that have several, or of your own; `rgb` drops it from any dataset.
        arguments: Further keyword arguments of the dataset function.
        encoding: What is made of the second modality's files, see `images.ENCODINGS`; None: the default.
        data_root: Where to look for `root`.

    Raises:
        UserError: Unknown name or argument, no such folder, another modality than is there, or what the dataset finds wrong
            with it.
    """
    check_split(name, split)
    if is_own(name):
        name, root = OWN, Path(name)
    function = resolve("datasets", name)
    given = dict(arguments or {})
    accepted = inspect.signature(function).parameters
    if len(accepted) < 2:
        raise UserError(
            f"dataset '{name}' takes ({', '.join(accepted)}); expected a function of a root, a split, and what you like."
        )
    if "modality" in accepted and modality is not None:
        given.setdefault("modality", modality)
    free = list(accepted)[2:]
    surplus = sorted(set(given) - set(free))
    if surplus:
        raise UserError(f"dataset '{name}' takes no argument {', '.join(surplus)}. It takes: {', '.join(free) or 'none'}.")
    if root is None and name in DATASETS and name != "synthetic":
        root = find_root(name, data_root)
    try:
        found = function(root, split, **given)
        sequences: List[Sequence] = found if isinstance(found, List) else list(found)
    except UserError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:
        if not given:
            raise
        named = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise UserError(f"dataset '{name}' cannot be read with {named} ({type(error).__name__}: {error}).") from error
    if not sequences:
        raise UserError(f"dataset '{name}', split '{split}': no sequences{'' if root is None else f' in {root}'}.")
    if not isinstance(sequences[0], Sequence):
        raise UserError(f"dataset '{name}' returned a {type(sequences[0]).__name__}, expected mstrack.Sequence for each video.")
    others = sorted({s.modality for s in sequences} - {modality, "rgb"}) if modality not in (None, "rgb") else []
    if others:
        raise UserError(
            f"dataset '{name}', split '{split}' holds {' and '.join(others)}, not {modality}. Leave out --modality, or give"
            f" {others[0]} or rgb (data.modality of a recipe)."
        )
    if modality == "rgb" and any(s.aux is not None for s in sequences[:1]):
        return [dataclasses.replace(s, aux=None, modality="rgb", encoding=None, aux_boxes=None) for s in sequences]
    if modality != "rgb" and encoding is not None:
        return [dataclasses.replace(s, encoding=check_encoding(s.modality, encoding)) for s in sequences]
    return sequences
