"""Datasets as lists of `Sequence`; training pairs."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mstrack.data.sequence import Frame, Sequence
from mstrack.errors import UserError
from mstrack.registry import resolve

__all__ = ["Frame", "Sequence", "load_sequences"]


def load_sequences(
    name: str, split: str, root: Path | None = None, modality: str | None = None, arguments: Mapping[str, Any] | None = None
) -> list[Sequence]:
    """The sequences of one split of a dataset of the catalogue.

    Args:
        name: A name of `mst list datasets`, or `module:function`.
        split: One of the dataset's splits.
        root: Its folder; None for datasets that know where they lie.
        modality: The second modality, for datasets that have several.
        arguments: Further keyword arguments of the dataset function.

    Raises:
        UserError: Unknown name or argument, or what the dataset finds wrong with its folder.
    """
    function = resolve("datasets", name)
    given = dict(arguments or {})
    accepted = inspect.signature(function).parameters
    if "modality" in accepted and modality is not None:
        given.setdefault("modality", modality)
    surplus = sorted(set(given) - set(accepted))
    if surplus:
        raise UserError(f"dataset '{name}' takes no argument {', '.join(surplus)}. It takes: {', '.join(accepted)}.")
    sequences = function(root, split, **given)
    if not sequences:
        raise UserError(f"dataset '{name}', split '{split}': no sequences in {root}.")
    return sequences
