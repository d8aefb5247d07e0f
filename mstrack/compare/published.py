"""The numbers that the paper prints, as package data: never measured here, and never mixed with what is."""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

PAPER = "Learning Effective Multi-modal Trackers via Modality-sensitive Tuning"
COMPARISONS = (1, 2)
"""The tables that compare trackers; the others are ablations, all with the paper's own training."""
COSTS = ("params_M", "FLOPs_G", "FPS")
"""What Table 7 prints besides scores."""


class Published(NamedTuple):
    """One row of a table of the paper.

    Attributes:
        table: Number of the table.
        method: As printed.
        base_model: The RGB tracker that it starts from.
        dataset: Its name in the catalogue.
        percent: SR, OP50, OP75 and PR, those that are printed.
        cost: Millions of parameters, GFLOPs and frames per second, where they are printed.
    """

    table: int
    method: str
    base_model: str
    dataset: str
    percent: dict[str, float]
    cost: dict[str, float]

    @property
    def label(self) -> str:
        """Method and base model, for example `MST (OSTrack)`."""
        return self.method if self.method == self.base_model else f"{self.method} ({self.base_model})"

    @property
    def compares(self) -> bool:
        """Whether the table compares trackers, rather than variants of one."""
        return self.table in COMPARISONS


def published_results(dataset: str) -> list[Published]:
    """The printed rows on a dataset, in the order of the tables; none where the paper does not use it."""
    return [row for row in _read_all() if row.dataset == dataset]


def published_table(number: int) -> list[Published]:
    """The printed rows of a table; none where we do not have it."""
    return [row for row in _read_all() if row.table == number]


@cache
def _read_all() -> list[Published]:
    rows: dict[tuple[str, ...], Published] = {}
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            key = (line["table"], line["method"], line["base_model"], line["dataset"])
            if key not in rows:
                rows[key] = Published(int(key[0]), key[1], key[2], key[3].lower(), {}, {})
            numbers = rows[key].cost if line["metric"] in COSTS else rows[key].percent
            numbers[line["metric"]] = float(line["value"])
    return list(rows.values())
