"""`mst data list`: which datasets are found where, without reading any."""

import os
import sys
from collections.abc import Container, Iterator
from pathlib import Path

from mstrack.data.layout import DEPTH, Tree
from mstrack.data.rgb import TREES as RGB
from mstrack.data.rgb import count_folders
from mstrack.data.roots import data_roots, locate
from mstrack.data.splits import OFFICIAL, read_list, split_names
from mstrack.registry import DATASETS, resolve

Table = tuple[list[str], list[list[str]]]


def survey(data_root: Path | None = None) -> Table:
    """Headers and rows: every dataset of the catalogue, its folders, their layout, and how many of its sequences lie there.

    Args:
        data_root: Where to look, see `roots.py`; folders are named in full where these are several.
    """
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
    found = {folder.name for folder in _find(root, set().union(*lists.values()), DEPTH)}
    return {split: len(found.intersection(names)) for split, names in lists.items()}


def name_layout(dataset: str, folder: Path) -> str:
    """Which variant of its `TREE` a sequence's folder has the most entries of; empty where there is but one, or none fits."""
    tree: Tree = sys.modules[resolve("datasets", dataset).__module__].TREES[dataset]
    entries = set(os.listdir(folder))  # noqa: PTH208 - names alone
    shares = {}
    for variant, items in tree.items():
        inner = [path.split("/")[1].replace("<sequence>", folder.name) for path in items if path.startswith("<sequence>/")]
        shares[variant] = sum(name in entries for name in inner) / max(1, len(inner))
    best = max(shares, key=lambda variant: shares[variant])
    return best if len(tree) > 1 and shares[best] > 0 else ""


def _lists(dataset: str) -> dict[str, set[str]]:
    return {split: set(read_list(dataset, split).names) for split in split_names(dataset) if split != "all"}


def _describe(dataset: str, root: Path) -> list[str]:
    """Layout and counts."""
    counts = count_sequences(dataset, root)
    if OFFICIAL in counts:
        counts = {split: counts[split] for split in (OFFICIAL, "test") if split in counts}
    lists = {} if dataset in RGB else _lists(dataset)
    said = [f"{split} {n:,}" + (f" of {len(lists[split]):,}" if split in lists else "") for split, n in counts.items()]
    first = next(_find(root, set().union(*lists.values()), DEPTH), None)
    return [name_layout(dataset, first) if first else "", ", ".join(said) or "not counted"]


def _find(folder: Path, wanted: Container[str], levels: int) -> Iterator[Path]:
    """Folders of some names, at most some levels below one; they are not looked into."""
    try:
        with os.scandir(folder) as entries:
            below = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return
    for name in below:
        if name in wanted:
            yield folder / name
        elif levels:
            yield from _find(folder / name, wanted, levels - 1)
