"""Frames as pictures: boxes and words on them, and contact sheets of whole sequences."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mstrack.boxes import Boxes
from mstrack.data.images import Image
from mstrack.data.sequence import Frame, Sequence
from mstrack.errors import UserError
from mstrack.results import replacing

COLOUR = (0, 114, 255)
"""Of boxes, in RGB."""
TRUTH = (60, 235, 120)
"""Of the boxes of an annotation."""
BACKGROUND, PANEL, INK, DIM, ALERT = (22, 24, 29), (40, 43, 51), (238, 240, 244), (150, 155, 165), (255, 176, 64)
GAP = 10
"""Pixels between the cells of a sheet."""
SMALL, SMALL_ROOM = 28, 3
"""The box of a target that is smaller on a sheet is drawn finer, and that much outside of it: what it shows stays visible."""

FAR = 1e6
"""Pixels; whatever is farther away or larger is drawn as if it were this, which is beyond every image."""

Colour = tuple[int, int, int]


def draw_box(image: Image, box: ArrayLike, colour: Colour = COLOUR, thickness: int = 1) -> None:
    """Draw x, y, w, h on an image, in place; nothing where they are not finite. The line is widened by a dark rim."""
    values = np.asarray(box, dtype=np.float64)
    if not np.isfinite(values).all():
        return
    x, y, w, h = (round(float(v)) for v in np.clip(values, -FAR, FAR))
    for shade, width in (((0, 0, 0), thickness + 2), (colour, thickness)):
        cv2.rectangle(image, (x, y), (x + w, y + h), shade, width, cv2.LINE_AA)


def write_words(image: Image, text: str, origin: tuple[int, int], height: int, colour: Colour = INK, rim: bool = True) -> int:
    """Write on an image, in place.

    Args:
        image: H x W x 3 uint8.
        text: What to write; characters beyond ASCII become question marks.
        origin: x, y of the left end of the base line.
        height: Of capital letters, in pixels.
        colour: Of the letters, in RGB.
        rim: Put a dark rim around them.

    Returns:
        The width of what was written, in pixels.
    """
    said, font = text.encode("ascii", "replace").decode(), cv2.FONT_HERSHEY_SIMPLEX
    scale = height / 21
    width = max(1, round(scale * 1.6))
    for shade, extra in (((0, 0, 0), 2 if rim else 0), (colour, 0)):
        cv2.putText(image, said, origin, font, scale, shade, width + extra, cv2.LINE_AA)
    return int(cv2.getTextSize(said, font, scale, width)[0][0])


def draw_frame(frame: Frame, box: ArrayLike, text: str) -> Image:
    """Both modalities side by side with a box on each, and words: H x W (or 2 W) x 3 uint8, RGB."""
    panels = []
    for image in (frame.rgb, frame.aux):
        if image is not None:
            panel = image.copy()
            draw_box(panel, box, COLOUR, max(1, round(min(panel.shape[:2]) / 240)))
            panels.append(panel)
    canvas = np.concatenate(panels, axis=1)
    height = max(8, round(canvas.shape[0] / 40))
    write_words(canvas, text, (round(height / 2), round(1.6 * height)), height)
    return canvas


def contact_sheet(sequence: Sequence, frames: int = 12, columns: int = 0, width: int = 1600) -> NDArray[np.uint8]:
    """Frames spread evenly over a sequence, with their boxes, both modalities side by side.

    Args:
        sequence: Its frames are read from disk.
        frames: How many at most.
        columns: Frames per row; 0: 3 of pairs, 4 of single images.
        width: Of the sheet in pixels.

    Returns:
        H x `width` x 3 uint8, RGB.

    Raises:
        UserError: A frame cannot be read.
    """
    numbers = np.unique(np.linspace(0, len(sequence) - 1, frames).round().astype(int)).tolist()
    panels = 1 if sequence.aux is None else 2
    columns = min(columns or (4 if panels == 1 else 3), len(numbers))
    cell = (width - GAP * (columns + 1)) // columns
    cells = [_draw_cell(sequence, number, cell, panels) for number in numbers]
    tallest = max(image.shape[0] for image in cells)
    rows = -(-len(cells) // columns)
    header = 52
    sheet = np.full((header + rows * (tallest + GAP), width, 3), BACKGROUND, dtype=np.uint8)
    _write_title(sheet, sequence, width)
    for i, image in enumerate(cells):
        top, left = header + (i // columns) * (tallest + GAP), GAP + (i % columns) * (cell + GAP)
        sheet[top : top + image.shape[0], left : left + cell] = image
    return sheet


def _write_title(sheet: Image, sequence: Sequence, width: int) -> None:
    absent = int((~sequence.valid).sum())
    facts = [f"{len(sequence)} frames", "colour only" if sequence.aux is None else f"colour + {sequence.modality}"]
    facts += [f"{absent} absent"] if absent else []
    facts += [f"first {sequence.first} cut off"] if sequence.first else []
    facts += [" ".join(sequence.attributes)] if sequence.attributes else []
    end = GAP + write_words(sheet, sequence.name, (GAP, 34), 17, rim=False)
    if end < width - 200:
        write_words(sheet, "   |   ".join(facts), (end + 24, 34), 12, DIM, rim=False)


def _draw_cell(sequence: Sequence, number: int, width: int, panels: int) -> Image:
    """One frame: its modalities side by side, its boxes, and its number below."""
    frame = sequence.frame(number)
    inner = (width - 2 * (panels - 1)) // panels
    height = max(1, round(frame.rgb.shape[0] * inner / frame.rgb.shape[1]))
    strip = 26
    canvas = np.full((height + strip, width, 3), PANEL, dtype=np.uint8)
    boxes: list[Boxes] = [sequence.boxes, sequence.boxes if sequence.aux_boxes is None else sequence.aux_boxes]
    present = bool(sequence.valid[number])
    for i, image in enumerate((frame.rgb, frame.aux)[:panels]):
        left = i * (inner + 2)
        if image is None:
            write_words(canvas, f"no {sequence.modality} frame", (left + 12, height // 2), 11, DIM, rim=False)
            continue
        scale = np.array([inner / image.shape[1], height / image.shape[0]] * 2)
        shrunk = cv2.resize(image, (inner, height), interpolation=cv2.INTER_AREA if scale[0] < 1 else cv2.INTER_CUBIC)
        panel = np.ascontiguousarray(shrunk, dtype=np.uint8)
        if present:
            room = np.array([-SMALL_ROOM, -SMALL_ROOM, 2 * SMALL_ROOM, 2 * SMALL_ROOM])
            box = boxes[i][number] * scale
            draw_box(panel, *((box + room, TRUTH, 1) if min(box[2:]) < SMALL else (box, TRUTH, 2)))
        canvas[:height, left : left + inner] = panel
    end = 8 + write_words(canvas, f"{number}", (8, height + 18), 11, INK, rim=False)
    if not present:
        write_words(canvas, "absent", (end + 12, height + 18), 11, ALERT, rim=False)
    return canvas


def save_picture(path: Path, image: Image) -> None:
    """Write an image as PNG or JPEG, by the ending of its name.

    Raises:
        UserError: Another ending, or the file cannot be written.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"'{path}' is no name of a picture: it should end in .png or .jpg.")
    _, data = cv2.imencode(path.suffix.lower(), np.ascontiguousarray(image[..., ::-1]))
    with replacing(path) as part:
        part.write_bytes(data.tobytes())
