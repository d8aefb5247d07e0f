"""What this process may use of the machine."""

import os
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_root() -> Path:
    """Where what is made once and kept goes, cached crops or compiled code: `$MST_CACHE`, or `mstrack` in the user's cache."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mstrack"
    return Path(os.environ.get("MST_CACHE") or user)
