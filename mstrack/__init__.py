"""mstrack: multi-modal single-object tracking, by sensitivity-aware tuning of RGB trackers.

The public names are imported on first use: `import mstrack` alone loads neither torch nor OpenCV.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mstrack.checkpoint import load
    from mstrack.data.sequence import Frame, Sequence
    from mstrack.evaluation import evaluate
    from mstrack.models import create_model
    from mstrack.tracker import Tracker
    from mstrack.training import train

_HOMES = {
    "create_model": "mstrack.models",
    "evaluate": "mstrack.evaluation",
    "Frame": "mstrack.data.sequence",
    "load": "mstrack.checkpoint",
    "Sequence": "mstrack.data.sequence",
    "Tracker": "mstrack.tracker",
    "train": "mstrack.training",
}

__all__ = ["Frame", "Sequence", "Tracker", "create_model", "evaluate", "load", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mstrack' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
