"""Where the published weights lie that rows start from: `--weights DIR`, `$MST_WEIGHTS`, or `./weights`."""

import os
from pathlib import Path

VARIABLE = "MST_WEIGHTS"


def weights_folder(given: Path | None = None) -> Path:
    """The folder of published weights, converted by `mst convert`."""
    return given or Path(os.environ.get(VARIABLE) or "weights")


def weights_file(name: str, given: Path | None = None) -> Path:
    """Where the weights of that name are expected, such as `ostrack-b256`."""
    return weights_folder(given) / f"{name}.safetensors"
