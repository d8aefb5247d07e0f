"""What a run remembers of itself: loss terms on the device between two looks, and the log on the disk."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mstrack import distributed
from mstrack.results import write_text


class TrainingError(RuntimeError):
    """The run cannot go on: the loss is not finite. Exit code 1."""


class Watch:
    """Loss terms and finiteness since the last look, kept on the device until they are read."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.terms: list[dict[str, torch.Tensor]] = []
        self.recent: list[tuple[str, ...]] = []
        self.names: list[tuple[str, ...]] = []
        self.bad: list[torch.Tensor] = []
        self.pending: list[torch.Tensor] = []

    def add(self, terms: dict[str, torch.Tensor], names: tuple[str, ...]) -> None:
        """Take the loss terms of one part of a batch and the sequences in it."""
        self.terms.append(terms)
        self.pending.append(torch.isfinite(terms["total"]))
        self.recent.append(names)

    def finite(self) -> torch.Tensor:
        """Whether the losses of this step are finite, as a bool tensor on the device."""
        return torch.stack(self.pending).all()

    def mark(self, bad: torch.Tensor) -> None:
        """Close a step: `bad` says whether its update was skipped."""
        self.bad.append(bad)
        self.names.append(tuple(name for part in self.recent for name in part))
        self.pending, self.recent = [], []

    def check(self) -> None:
        """Wait for the device, and see that all steps since the last `read` were finite.

        Raises:
            TrainingError: One was not; names the sequences of its batch.
        """
        bad = torch.stack(self.bad).tolist() if self.bad else []
        if any(bad):
            at_fault = sorted({name for flag, names in zip(bad, self.names, strict=True) if flag for name in names})
            raise TrainingError(
                f"the loss or its gradient was not finite in {sum(bad)} of the last {len(bad)} steps; no weight was touched by"
                f" them. Sequences of these batches: {', '.join(at_fault)}. Look at their boxes, or lower train.lr."
            )

    def read(self) -> dict[str, float]:
        """Mean terms since the last call; checks them.

        Raises:
            TrainingError: As `check`.
        """
        keys = list(self.terms[0])
        table = torch.stack([torch.stack([t[k].float() for k in keys]) for t in self.terms])
        self.check()
        mean = distributed.mean_over_ranks(table.mean(0)).tolist()
        self.terms, self.bad, self.names = [], [], []
        return dict(zip(keys, mean, strict=True))


class Journal:
    """`log.jsonl` and TensorBoard, both cut back to the step that a run goes on from."""

    def __init__(self, out: Path, step: int, tensorboard: bool, active: bool) -> None:
        self.board: Any = None
        self.path = out / "log.jsonl"
        self.active = active
        if not self.active:
            return
        lines = self.path.read_text(errors="replace").splitlines() if self.path.is_file() else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_text(self.path, "".join(f"{line}\n" for line in kept))
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of a step, if there are any."""
        if not self.active or not values:
            return
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **{k: round(v, 8) for k, v in values.items()}}) + "\n")
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        if self.board is not None:
            self.board.close()


def _step_of(line: str) -> float:
    """The step of a journal line; a line cut off by a crash has none and is dropped."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def read_curves(out: Path, names: Mapping[str, str]) -> dict[str, list[tuple[float, float]]]:
    """(step, value) points of a run's log; `names` maps what the log calls a value to what a reader calls it."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {shown: [(line["step"], line[name]) for line in lines if name in line] for name, shown in names.items()}
