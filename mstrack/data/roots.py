"""Where datasets lie: below `--data-root`, the folders of `$MST_DATA`, or `./data`; and where we keep what we make of them."""

import os
import re
from pathlib import Path

from mstrack.errors import UserError
from mstrack.registry import DATASETS

VARIABLE = "MST_DATA"
ALIASES = {"vot-rgbd": ("cdtb", "votrgbd"), "trackingnet": ("tracking-net",), "coco": ("mscoco", "coco2017")}
"""What else the folders of datasets are called."""


def is_own(name: str) -> bool:
    """Whether a name stands for a folder of a user's own data, rather than for a dataset of the catalogue or a function."""
    return bool(name) and name not in DATASETS and ":" not in name and Path(name).is_dir()


def data_roots(given: Path | None = None) -> list[Path]:
    """The folders that datasets are looked for in: the given one, else those of `$MST_DATA`, else `./data`."""
    if given is not None:
        return [given]
    parts = os.environ.get(VARIABLE, "").split(os.pathsep)
    named = [Path(os.path.expanduser(part)) for part in parts if part]  # noqa: PTH111 - never raises
    return named or [Path("data")]


def locate(dataset: str, given: Path | None = None) -> list[Path]:
    """Folders whose name begins with the dataset's name, or another of its names; letters and digits alone count."""
    wanted = tuple(_plain(name) for name in (dataset, *ALIASES.get(dataset, ())))
    found = []
    for root in data_roots(given):
        if root.is_dir():
            found += sorted(f for f in root.iterdir() if f.is_dir() and _plain(f.name).startswith(wanted))
    return found


def find_root(dataset: str, given: Path | None = None) -> Path:
    """The one folder of a dataset.

    Raises:
        UserError: There is none, or several.
    """
    found = locate(dataset, given)
    where = ", ".join(str(root) for root in data_roots(given))
    if not found:
        raise UserError(
            f"no folder of '{dataset}' in {where}. Name it (--root DIR, or root: in a recipe), or the folder that holds it"
            f" (--data-root DIR, or ${VARIABLE}); `mst data list` shows what is found where."
        )
    if len(found) > 1:
        raise UserError(f"'{dataset}' may be any of {', '.join(map(str, found))}. Name one (--root DIR, or root: in a recipe).")
    return found[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
