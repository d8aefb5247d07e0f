"""What the doctor says of a data set: findings, counts, tables, JSON."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
Size = tuple[int, int]
"""Width and height in pixels."""
Table = tuple[list[str], list[list[str]]]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        level: `error`: this data cannot be used as it is. `warning`: it was dealt with, or leads to other numbers than the
            published. `note`: good to know.
        kind: Findings of one kind are one line of the table.
        where: The sequence, or `dataset/split`.
        text: What was found.
        count: How many frames, where it is of frames.
    """

    level: Level
    kind: str
    where: str
    text: str
    count: int = 1


@dataclass(frozen=True)
class SequenceFacts:
    """One sequence.

    Attributes:
        name: Its name.
        split: Where it was found.
        frames: Their number, with the leading ones that are cut off.
        cut: How many leading frames are cut off because the target is absent.
        absent: Frames without the target, the leading ones among them.
        lacking: Frames without a file of the second modality.
        sizes: Width and height of the colour images that were looked at.
        aux_sizes: And of those of the second modality.
        partly: Boxes that reach out of the image.
        outside: Boxes that lie outside of it.
        blank: Images of the second modality with one value everywhere (known after decoding).
        repeated: Colour images equal to the one before (known after decoding).
    """

    name: str
    split: str
    frames: int
    cut: int
    absent: int
    lacking: int
    sizes: tuple[Size, ...]
    aux_sizes: tuple[Size, ...]
    partly: int = 0
    outside: int = 0
    blank: int | None = None
    repeated: int | None = None


@dataclass(frozen=True)
class Counts:
    """Sequences, frames, and frames without the target, of one split; None where it is not known."""

    sequences: int | None = None
    frames: int | None = None
    absent: int | None = None


@dataclass(frozen=True)
class SplitFacts:
    """One split: what was found, and what there is officially."""

    name: str
    found: Counts
    official: Counts = Counts()


@dataclass
class Report:
    """What `doctor.check` returns.

    Attributes:
        dataset: The name that was given.
        root: Its folder.
        images: `sampled`, `headers` or `decoded`: how much of the images was looked at.
        splits: One entry for each split that could be read.
        sequences: All of their sequences.
        findings: In the order in which they were made.
    """

    dataset: str
    root: Path | None
    images: str = "sampled"
    splits: list[SplitFacts] = field(default_factory=list)
    sequences: list[SequenceFacts] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """The findings that are errors."""
        return [finding for finding in self.findings if finding.level == "error"]

    def split_table(self) -> Table:
        """Headers and rows: counts of each split, next to the official ones."""
        rows = []
        for split in self.splits:
            of_split = [facts for facts in self.sequences if facts.split == split.name]
            rows.append(
                [
                    split.name,
                    _of(split.found.sequences, split.official.sequences),
                    _of(split.found.frames, split.official.frames),
                    _of(split.found.absent, split.official.absent),
                    _commonest(size for facts in of_split for size in set(facts.sizes)),
                ]
            )
        return ["split", "sequences", "frames", "absent", "images"], rows

    def table(self) -> Table:
        """Headers and rows: a line for each kind of finding, with how many sequences have it, and the first."""
        groups: dict[tuple[Level, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.level, finding.kind), []).append(finding)
        rows = []
        for (level, kind), found in sorted(groups.items(), key=lambda item: LEVELS.index(item[0][0])):
            first = found[0]
            others = f"  (and {len(found) - 1:,} more)" if len(found) > 1 else ""
            rows.append([level, kind, f"{len(found):,}", f"{first.where}: {first.text}{others}"])
        return ["level", "kind", "found", "first"], rows

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON has it; of sequences of one frame, which are many, only the findings."""
        return {
            "dataset": self.dataset,
            "root": None if self.root is None else str(self.root),
            "images": self.images,
            "errors": len(self.errors),
            "splits": [asdict(split) for split in self.splits],
            "findings": [asdict(finding) for finding in self.findings],
            "sequences": [asdict(facts) for facts in self.sequences if facts.frames > 1],
        }


def _of(found: int | None, official: int | None) -> str:
    if official is None:
        return "-" if found is None else f"{found:,}"
    if found is None:
        return f"- of {official:,}"
    return f"{found:,} = official" if found == official else f"{found:,} of {official:,}"


def _commonest(sizes: Iterable[Size]) -> str:
    """The size that most sequences have, and how many other sizes there are."""
    counted: dict[Size, int] = {}
    for size in sizes:
        counted[size] = counted.get(size, 0) + 1
    if not counted:
        return "-"
    width, height = max(counted, key=lambda size: counted[size])
    return f"{width} x {height}" + (f" and {len(counted) - 1} other sizes" if len(counted) > 1 else "")
