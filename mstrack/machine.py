"""What this process may use of the machine."""

import os
import platform
from pathlib import Path

from mstrack.errors import UserError


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_root() -> Path:
    """Where what is made once and kept goes, cached crops or compiled code: `$MST_CACHE`, or `mstrack` in the user's cache.

    Raises:
        UserError: The user has no home, and nothing says where else.
    """
    if chosen := os.environ.get("MST_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mstrack"
    except RuntimeError as error:
        raise UserError("this user has no home folder, where a cache would be: MST_CACHE=FOLDER says where else.") from error


def describe_processor(*fields: str) -> str:
    """What the system says of the processor, under the first of these names that it has: by default what it is called."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    said = (line.partition(":")[2].strip() for line in lines if line.startswith(fields or ("model name",)))
    return next(said, platform.processor() or platform.machine())


def installed_memory() -> int | None:
    """Bytes of memory that this machine, or the container this process runs in, has; None where no one says."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            said = Path(limit).read_text().strip()
        except OSError:
            continue
        if said.isdecimal():
            found = min(found, int(said))
    return found
