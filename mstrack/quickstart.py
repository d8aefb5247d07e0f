"""`mst quickstart`: train, track and report on the embedded benchmark. The three jobs of the other commands, nothing of its own."""

from collections.abc import Callable
from dataclasses import dataclass

from mstrack.evaluation import Progress

Begin = Callable[[str], Progress]


@dataclass(frozen=True)
class Recipe:
    """One row of the comparison: what it is called and what it changes in the quickstart recipe."""

    label: str
    overrides: tuple[str, ...]
    swept_as: str


RECIPES = {
    "full": Recipe("Full fine-tuning", ("tuning.name=full",), "full"),
    "mst": Recipe("MST (paper)", ("tuning.name=mst",), "mst"),
    "default": Recipe("mstrack default", ("tuning.name=mst", "data.modality_dropout=0.3", "data.photometric=0.2"), "default"),
}
CONTROL = "control"
