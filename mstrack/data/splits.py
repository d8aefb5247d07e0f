"""Committed lists of sequence names: which sequences a split of a dataset has, by name and hash."""

import hashlib
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as List
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from mstrack.data.layout import Tree, describe_tree, natural
from mstrack.data.sequence import Sequence
from mstrack.data.stills import Stills
from mstrack.errors import UserError, some, warn
from mstrack.registry import unknown

HELD_OUT, OFFICIAL = "val", "train-official"
_FOLDER = resources.files("mstrack") / "data" / "lists"


@dataclass(frozen=True)
class NameList:
    """A list of sequences.

    Attributes:
        name: `dataset/split`.
        names: The sequences, in the order of the list.
    """

    name: str
    names: tuple[str, ...]

    @property
    def hash(self) -> str:
        """Of the names in their order: the first 16 hexadecimal digits of SHA-256 over one name per line."""
        return hash_names(self.names)


def hash_names(names: Iterable[str]) -> str:
    """The hash of `NameList.hash`."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode(errors="surrogateescape")).hexdigest()[:16]


def describe_list(dataset: str, split: str, sequences: List[Sequence]) -> dict[str, Any]:
    """What runs and scores record of the list they used.

    Args:
        dataset: A name of the catalogue, `module:function`, or a folder, which is called by its last part.
        split: The split.
        sequences: What was read of it.

    Returns:
        `name`, `hash` (of the names that were used, in order), `sequences` (their number), and, where the dataset has a
        committed list and some of it was not used, `of`: how many sequences the list has.
    """
    names = sequences.names if isinstance(sequences, Stills) else [sequence.name for sequence in sequences]
    described: dict[str, Any] = {"name": f"{Path(dataset).name}/{split}", "hash": hash_names(names), "sequences": len(names)}
    if split != "all" and split in split_names(dataset):
        used = set(names)
        listed = read_list(dataset, split).names
        described |= {} if used.issuperset(listed) else {"of": len(listed)}
    return described


def check_split(dataset: str, split: str) -> None:
    """Refuse a split without a name.

    Raises:
        UserError: It is empty.
    """
    if not split.strip():
        raise UserError(f"the split of '{dataset}' has an empty name; `all` is every sequence that is found.")


def split_names(dataset: str) -> list[str]:
    """The splits that a dataset has lists for; `all` is every sequence on disk."""
    known = dataset in (folder.name for folder in _FOLDER.iterdir() if folder.is_dir())
    committed = [file.name.removesuffix(".txt") for file in (_FOLDER / dataset).iterdir()] if known else []
    return sorted([*committed, "all", *(["train"] if OFFICIAL in committed else [])])


@cache
def read_list(dataset: str, split: str) -> NameList:
    """A committed list. `train` is the official training list without those that `val` holds out of it.

    Raises:
        UserError: The dataset has no such split.
    """
    known = split_names(dataset)
    if split not in known or split == "all":
        raise UserError(unknown(f"split of {dataset}", split, known))
    if split == "train" and OFFICIAL in known:
        held_out = set(_read(dataset, HELD_OUT))
        return NameList(f"{dataset}/train", tuple(n for n in _read(dataset, OFFICIAL) if n not in held_out))
    return NameList(f"{dataset}/{split}", _read(dataset, split))


def select(dataset: str, split: str, found: Mapping[str, Path], root: Path, tree: Tree) -> list[Path]:
    """The folders of a split's sequences, in the order of its list.

    Args:
        dataset: Name of the folder of lists.
        split: One of `split_names`.
        found: Folders on disk by name.
        root: Where they were looked for.
        tree: How they lie, for the message.

    Raises:
        UserError: No such split, or none of its sequences is on disk. Where only some are missing, a warning names them.
    """
    names = sorted(found, key=natural) if split == "all" else read_list(dataset, split).names
    present = [found[name] for name in names if name in found]
    if not present:
        held = f"It holds other sequences: {', '.join(list(found)[:3])}, ..." if found else "Expected one of these layouts:"
        raise UserError(f"{dataset}: {root} has none of the {len(names)} sequences of '{split}'. {held}\n{describe_tree(tree)}")
    warn_missing(f"{dataset}/{split}", [name for name in names if name not in found], len(names), root)
    return present


def warn_missing(listed: str, missing: List[str], count: int, place: Path, what: str = "sequences") -> None:
    """Warn of what a list has and a folder lacks; nothing is said where nothing is missing.

    Args:
        listed: Name of the list.
        missing: What is missing.
        count: How many the list has.
        place: Where it was looked for.
        what: What they are.
    """
    if missing:
        warn(listed, "missing", f"{len(missing)} of {count} {what} are not in {place}: {some(missing, 5)}")


def _read(dataset: str, split: str) -> tuple[str, ...]:
    file = _FOLDER / dataset / f"{split}.txt"
    return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
