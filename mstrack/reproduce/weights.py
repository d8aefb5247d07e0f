"""Where the published weights lie that rows start from: `--weights DIR`, `$MST_WEIGHTS`, or `./weights`."""

import hashlib
import os
from functools import cache
from pathlib import Path

VARIABLE = "MST_WEIGHTS"


def weights_folder(given: Path | None = None) -> Path:
    """The folder of published weights, converted by `mst convert`."""
    return given or Path(os.environ.get(VARIABLE) or "weights")


def weights_file(name: str, given: Path | None = None) -> Path:
    """Where the weights of that name are expected, such as `ostrack-b256`."""
    return weights_folder(given) / f"{name}.safetensors"


def fingerprint(file: Path) -> str:
    """SHA-256 of a file's bytes, read once for as long as its size and its time stay as they are."""
    found = file.stat()
    return _digest(file, found.st_size, found.st_mtime_ns)


@cache
def _digest(file: Path, size: int, time: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
