"""One sequence looked at: sizes, names and boxes, and every image decoded where that is asked for."""

import re
from collections.abc import Callable, Iterable
from collections.abc import Sequence as List
from concurrent.futures import Executor
from dataclasses import replace
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.boxes import corners
from mstrack.data.doctor.findings import Finding, SequenceFacts, Size
from mstrack.data.headers import image_size
from mstrack.data.imagefiles import decode_bytes, is_cut_short, read_bytes
from mstrack.data.images import is_blank
from mstrack.data.layout import Files
from mstrack.data.sequence import Sequence
from mstrack.errors import UserError

LAST_NUMBER = re.compile(r"(\d+)\D*$")


class Look(NamedTuple):
    """What is seen of one image; `size` is None where there is none, and `problem` says why."""

    size: Size | None = None
    digest: bytes = b""
    blank: bool = False
    problem: str = ""


def inspect(sequence: Sequence, split: str, every: bool) -> tuple[SequenceFacts, list[Finding]]:
    """Look at a sequence without decoding its images: at the headers of three of them, or of all.

    Frames that are not simply files (of a video, of a recording) are not looked at, but for the first colour frame.
    """
    last = len(sequence) - 1
    indices = range(last + 1) if every else sorted({0, last // 2, last})
    rgb = [_glance(sequence.rgb[i]) if i == 0 or isinstance(sequence.rgb[i], Path) else Look() for i in indices]
    aux = [_glance(sequence.aux[i]) if isinstance(sequence.aux[i], Path) else Look() for i in indices] if sequence.aux else []
    return _report(sequence, split, indices, rgb, aux)


def decode(sequence: Sequence, split: str, pool: Executor, step: Callable[[], None]) -> tuple[SequenceFacts, list[Finding]]:
    """Decode every image of a sequence.

    Args:
        sequence: The sequence.
        split: Where it belongs.
        pool: Of threads: OpenCV decodes without Python's lock.
        step: Called after each frame.
    """
    frames = list(zip(sequence.rgb, sequence.aux or [None] * len(sequence), strict=True))
    rgb, aux = [], []
    for colour, other in pool.map(lambda pair: (_decode(pair[0], None), _decode(pair[1], sequence.modality)), frames):
        rgb.append(colour)
        aux.append(other)
        step()
    facts, findings = _report(sequence, split, range(len(sequence)), rgb, aux if sequence.aux else [])
    blank, repeated = sum(look.blank for look in aux), _count_repeats(rgb)
    kind = sequence.modality
    if blank:
        mostly = 2 * blank > len(aux)
        level, text = ("warning" if mostly else "note", ", nothing moved or no events")
        if kind != "event":
            level = "error" if mostly else "warning"
            text = ": a dead sensor. Such frames count as missing: --missing, or data.missing of a recipe, says what is fed"
        said = f"{blank} of {len(aux)} {kind} images have one value everywhere{text}"
        findings.append(Finding(level, "blank", sequence.name, said, blank))  # type: ignore[arg-type]
    for what, count in (("colour", repeated), (kind, _count_repeats(aux) if kind != "event" else 0)):
        if count:
            said = f"{count} of {len(sequence)} {what} images equal the one before"
            findings.append(Finding("note", "repeated", sequence.name, said, count))
    return replace(facts, blank=blank if sequence.aux else None, repeated=repeated), findings


def _report(
    sequence: Sequence, split: str, indices: List[int], rgb: list[Look], aux: list[Look]
) -> tuple[SequenceFacts, list[Finding]]:
    """What follows from the images that were looked at, and from names and boxes."""
    name, kind = sequence.name, sequence.modality
    findings = []
    problems = [look.problem for look in (*rgb, *aux) if look.problem]
    if problems:
        findings.append(Finding("error", "unreadable", name, _first(problems), len(problems)))
    sizes, aux_sizes = _distinct(rgb), _distinct(aux)
    for what, found in (("colour", sizes), (kind, aux_sizes)):
        if len(found) > 1:
            findings.append(Finding("warning", "size", name, f"{what} images change their size: {_words(found)}", len(found)))
    unlike = [i for i, a, b in zip(indices, rgb, aux, strict=False) if a.size and b.size and a.size != b.size]
    if unlike:
        at = unlike[0]
        a, b = rgb[indices.index(at)].size, aux[indices.index(at)].size
        text = f"frame {at}: colour {_words([a])}, {kind} {_words([b])}, but one box serves both"
        findings.append(Finding("error", "modalities", name, text, len(unlike)))
    lacking = sum(source is None for source in sequence.aux or ())
    gaps = {kind: find_gap(sequence.aux or ()), "colour": find_gap(sequence.rgb)}
    for text, what in {text: what for what, text in gaps.items()}.items():
        if text:
            findings.append(Finding("warning", "gap", name, f"numbers of {what} frames: {text}"))
    boxes = sequence.boxes[sequence.valid]
    partly, outside = _count_beyond(boxes, sizes[0]) if len(sizes) == 1 else (0, 0)
    if partly and _look_like_corners(boxes, sizes[0]):
        text = (
            f"{partly} of {len(boxes)} boxes reach out of the image ({_words(sizes)}), and none would as corners x1,y1,x2,y2:"
            " if that is what they are, write x1,y1,x2-x1,y2-y1"
        )
        findings.append(Finding("warning", "corners", name, text, partly))
    if outside:
        text = f"{outside} of {len(boxes)} boxes lie outside of the image ({_words(sizes)})"
        findings.append(Finding("warning", "outside", name, text, outside))
    facts = SequenceFacts(
        name=name,
        split=split,
        frames=len(sequence) + sequence.first,
        cut=sequence.first,
        absent=int((~sequence.valid).sum()) + sequence.first,
        lacking=lacking,
        sizes=sizes,
        aux_sizes=aux_sizes,
        partly=partly,
        outside=outside,
    )
    return facts, findings


def find_gap(files: List[Any]) -> str:
    """Where the numbers in the names of frames are not evenly spaced; empty where they are, or where there are none."""
    if isinstance(getattr(files, "numbers", None), range):
        return ""
    names = files.names if isinstance(files, Files) else [file.name for file in files if isinstance(file, Path)]
    digits = [LAST_NUMBER.search(name.rpartition(".")[0]) for name in names]
    numbers = np.array([int(found.group(1)[-18:]) for found in digits if found], dtype=np.int64)
    if len(numbers) < len(names):
        return f"{len(names) - len(numbers)} of {len(names)} names have none" if len(numbers) else ""
    steps = np.diff(numbers)
    usual = max(1, int(np.median(steps))) if len(steps) else 1
    odd = np.flatnonzero(steps != usual)
    if not len(odd):
        return ""
    first, second = (int(numbers[i]) for i in (odd[0], odd[0] + 1))
    if (steps <= 0).any():
        return f"{len(odd)} do not follow the one before, the first {second} after {first}"
    missing = int((steps[odd] // usual - 1).clip(1).sum())
    return f"{missing} missing, the first between {first} and {second}"


def _glance(source: Any) -> Look:
    try:
        if isinstance(source, Path):
            return Look(image_size(source))
        height, width = source.decode(cv2.IMREAD_COLOR).shape[:2]
        return Look((width, height))
    except UserError as error:
        return Look(problem=str(error))


def _decode(source: Any, modality: str | None) -> Look:
    if source is None:
        return Look()
    flags = cv2.IMREAD_COLOR if modality is None else cv2.IMREAD_UNCHANGED
    try:
        data = read_bytes(source) if isinstance(source, Path) else b""
        image = decode_bytes(data, flags, source) if data else source.decode(flags)
        if is_cut_short(data, image):
            raise UserError(f"image {source} is damaged: its data end before the picture does. Copy it again.")
    except UserError as error:
        return Look(problem=str(error))
    height, width = image.shape[:2]
    digest = blake2b(data or image.tobytes(), digest_size=8).digest()
    return Look((width, height), digest, modality is not None and is_blank(image))


def _count_repeats(looks: list[Look]) -> int:
    return sum(bool(a.digest) and a.digest == b.digest and not a.blank for a, b in pairwise(looks))


def _count_beyond(boxes: NDArray[np.float64], size: Size) -> tuple[int, int]:
    """Boxes that reach out of an image, and boxes that lie outside of it."""
    left, top, right, bottom = corners(boxes).T
    width, height = size
    outside = (right <= 0) | (bottom <= 0) | (left >= width) | (top >= height)
    reaching = (left < 0) | (top < 0) | (right > width) | (bottom > height)
    return int((reaching & ~outside).sum()), int(outside.sum())


def _look_like_corners(boxes: NDArray[np.float64], size: Size) -> bool:
    """Whether most boxes reach out of an image, and none does if the four values are two corners."""
    reaching = (boxes[:, :2] + boxes[:, 2:] > size).any(axis=1)
    ordered = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= size)
    return bool(ordered.all() and reaching.mean() > 0.5)


def _distinct(looks: list[Look]) -> tuple[Size, ...]:
    return tuple(dict.fromkeys(look.size for look in looks if look.size))


def _words(sizes: Iterable[Size | None]) -> str:
    return ", ".join(f"{size[0]} x {size[1]}" for size in sizes if size)


def _first(problems: list[str]) -> str:
    return problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
