"""`mst data list`: which datasets are found where, without reading any."""

import os
import sys
from pathlib import Path

from mstrack.data.layout import Tree, find_named
from mstrack.data.rgb import TREES as RGB
from mstrack.data.rgb import count_folders
from mstrack.data.roots import data_roots, locate
from mstrack.data.splits import OFFICIAL, read_list, split_names
from mstrack.errors import UserError
from mstrack.registry import DATASETS, resolve

Table = tuple[list[str], list[list[str]]]


def survey(data_root: Path | None = None) -> Table:
    """Headers and rows: every dataset of the catalogue, its folders, their layout, and how many of its sequences lie there.

    Args:
        data_root: Where to look, see `roots.py`; folders are named in full where these are several.

    Raises:
        UserError: `data_root` is no folder.
    """
    if data_root is not None and not data_root.is_dir():
        raise UserError(f"there is no folder {data_root}.")
    rows = []
    alone = len(data_roots(data_root)) == 1
    for dataset in sorted(DATASETS):
        if dataset == "own":
            continue
        if dataset == "synthetic":
            rows.append([dataset, "-", "", "embedded: made when it is asked for"])
            continue
        folders = locate(dataset, data_root)
        rows += [[dataset, folder.name if alone else str(folder), *_describe(dataset, folder)] for folder in folders] or [
            [dataset, "-", "", ""]
        ]
    return ["dataset", "folder", "layout", "sequences"], rows


def count_sequences(dataset: str, root: Path) -> dict[str, int]:
    """How many sequences of each split have a folder below a root; only names of folders are looked at."""
    if dataset in RGB:
        return count_folders(dataset, root)
    lists = _lists(dataset)
    found = {folder.name for folder in find_named(root, set().union(*lists.values()).__contains__)}
    return {split: len(found.intersection(names)) for split, names in lists.items()}


def name_layout(dataset: str, folder: Path) -> str:
    """Which variant of its `TREE` a sequence's folder has the most entries of; empty where there is but one, or none fits."""
    shares = _compare(dataset, folder)
    best = max(shares, key=lambda variant: shares[variant])
    return best if len(shares) > 1 and shares[best] > 0 else ""


def recognise(root: Path) -> str:
    """The dataset of the catalogue whose sequences lie below a root, by their names and entries; empty where none does."""
    if any((root / name).exists() for name in ("data.yaml", "rgb")):
        return ""
    counts = {name: _count_alike(name, root) for name in DATASETS if split_names(name) != ["all"]}
    counts |= {name: sum(count_folders(name, root).values()) for name in RGB}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else ""


def tree_of(dataset: str) -> Tree:
    """The layouts of a dataset."""
    tree: Tree = sys.modules[resolve("datasets", dataset).__module__].TREES[dataset]
    return tree


def _count_alike(dataset: str, root: Path) -> int:
    """How many folders have the name of a sequence, and most of the entries of one."""
    names = set().union(*_lists(dataset).values())
    return sum(max(_compare(dataset, folder).values()) > 0.5 for folder in find_named(root, names.__contains__))


def _compare(dataset: str, folder: Path) -> dict[str, float]:
    """How many of the entries of each variant of a `TREE` a sequence's folder has."""
    tree = tree_of(dataset)
    try:
        entries = set(os.listdir(folder))  # noqa: PTH208 - names alone
    except OSError:
        entries = set()
    shares = {}
    for variant, items in tree.items():
        inner = [path.split("/")[1].replace("<sequence>", folder.name) for path in items if path.startswith("<sequence>/")]
        shares[variant] = sum(name in entries for name in inner) / max(1, len(inner))
    return shares


def _lists(dataset: str) -> dict[str, set[str]]:
    return {split: set(read_list(dataset, split).names) for split in split_names(dataset) if split != "all"}


def _describe(dataset: str, root: Path) -> list[str]:
    """Layout and counts."""
    counts = count_sequences(dataset, root)
    if OFFICIAL in counts:
        counts = {split: counts[split] for split in (OFFICIAL, "test") if split in counts}
    lists = {} if dataset in RGB else _lists(dataset)
    said = [f"{split} {n:,}" + (f" of {len(lists[split]):,}" if split in lists else "") for split, n in counts.items()]
    first = next(find_named(root, set().union(*lists.values()).__contains__), None)
    return [name_layout(dataset, first) if first else "", ", ".join(said) or "not counted"]
