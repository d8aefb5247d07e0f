"""What four values of a result are, x, y, w, h or two corners: by the headers of the files, or the annotation."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mstrack.boxes import Boxes, from_corners, iou
from mstrack.rawresults.text import BoxText

Form = Literal["auto", "xywh", "corners"]
Values = NDArray[np.float64]


def interpret(
    texts: Mapping[str, BoxText], rows: dict[str, Values], truths: Mapping[str, Boxes], form: Form
) -> tuple[dict[str, Values], str]:
    """Boxes x, y, w, h of all sequences of a tracker, and the words for what its rows are.

    Args:
        texts: What was read, by sequence.
        rows: The rows that count.
        truths: Annotations (N, 4); without, `auto` is x, y, w, h where no header says otherwise.
        form: What four values are.
    """
    plain = [sequence for sequence, text in texts.items() if not text.polygons]
    if not plain:
        return _widen(rows, list(rows), truths, "the box around eight values")
    named = {texts[sequence].header for sequence in plain} - {None, ""}
    if form == "auto":
        form = "corners" if named == {"corners"} or (not named and _are_corners(rows, plain, truths)) else "xywh"
    if form == "xywh":
        return rows, "x, y, w, h"
    changed = {**rows, **{sequence: from_corners(rows[sequence]) for sequence in plain}}
    return _widen(changed, plain, truths, "corners x1, y1, x2, y2")


def _are_corners(rows: Mapping[str, Values], plain: list[str], truths: Mapping[str, Boxes]) -> bool:
    """Whether the first boxes are the annotated ones as corners rather than as x, y, w, h, and all rows can be corners."""
    first, true = _first_boxes(rows, plain, truths)
    if not len(first):
        return False
    as_corners, as_sizes = (float(np.nanmean(iou(boxes, true))) for boxes in (from_corners(first), first))
    return as_corners > max(as_sizes, 0.5) and all(_could_be_corners(rows[sequence]) for sequence in plain)


def _could_be_corners(rows: Values) -> bool:
    known = rows[np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1)]
    return bool((known[:, 2:] >= known[:, :2]).mean() >= 0.99) if len(known) else True


def _widen(
    boxes: dict[str, Values], chosen: list[str], truths: Mapping[str, Boxes], words: str
) -> tuple[dict[str, Values], str]:
    """Boxes made of corners, a pixel wider and higher where the first ones show that both corners belong to the box."""
    first, true = _first_boxes(boxes, chosen, truths)
    misses = [float(np.median(np.abs(first[:, 2:] + more - true[:, 2:]))) if len(first) else 0.0 for more in (0, 1)]
    if misses[1] < min(misses[0], 0.25):
        return {s: b + np.array([0, 0, 1, 1]) if s in chosen else b for s, b in boxes.items()}, f"{words}, both inclusive"
    return boxes, words


def _first_boxes(rows: Mapping[str, Values], chosen: list[str], truths: Mapping[str, Boxes]) -> tuple[Values, Values]:
    """First rows of some sequences and their truths, where both are boxes; of a cut sequence, the truth that it began with."""
    pairs = []
    for sequence in chosen:
        true, found = truths.get(sequence), rows[sequence]
        if true is not None and len(true) and len(found):
            usable = np.isfinite(true).all(axis=1) & (true[:, 2:] > 0).all(axis=1)
            start = int(np.argmax(usable)) if len(found) == len(true) - np.argmax(usable) else 0
            if bool(np.asarray(usable)[start]) and np.isfinite(found[0]).all():
                pairs.append((found[0], true[start]))
    both = np.array(pairs, dtype=np.float64).reshape(-1, 2, 4)
    return both[:, 0], both[:, 1]
