"""Making the cache of crops (`cropcache.py`): in parallel, resumable, within a bounded number of bytes."""

import hashlib
import json
import shutil
import tempfile
import threading
import zlib
from collections.abc import Callable
from collections.abc import Sequence as List
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.claims import alone
from mstrack.data.cropcache import (
    FINISHES,
    JPEG,
    RECORD,
    TILE,
    VERSION,
    ZLIB,
    find_damage,
    identify,
    name_entry,
    read_about,
    stamp,
)
from mstrack.data.imagefiles import FrameFile, jpeg_header
from mstrack.data.images import Picture, open_reduced
from mstrack.data.pairs import Extent, Pairing, find_extent
from mstrack.data.sequence import Sequence
from mstrack.errors import UserError
from mstrack.machine import usable_cores

SHARE = 0.98
"""Of the crops, how many lie within what is kept (the others are read from the dataset)."""
QUALITY = 95


class Built(NamedTuple):
    """What `build` has done."""

    made: int
    """Sequences."""
    kept: int
    """Sequences that were there already."""
    bytes: int
    """In the whole folder."""
    margin: float
    """Side of the square around a box that is kept, in target sizes."""
    outside: float
    """Largest share of the crops of a kind that do not lie within it, as if frames were larger than everything."""


def build(
    sequences: List[Sequence],
    pairing: Pairing,
    folder: Path,
    max_bytes: float = 100e9,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    share: float = SHARE,
    verify: bool = False,
    scaled: bool = True,
) -> Built:
    """Make the cache of some sequences; those that it holds already are left as they are if their files have not changed.

    A sequence is there whole or not at all. One build at a time in a folder: what an earlier one left half-made is removed.

    Args:
        sequences: Of any dataset; sources of the training. Those of one frame (`Stills`) are left out, and not counted.
        pairing: Whose crops should be found; jitter and factors decide how much is kept around a box.
        folder: The cache.
        max_bytes: Of the whole folder.
        workers: Threads; None: one per core. (Decoding and encoding run without Python's lock.)
        progress: Called with the numbers of finished and of all sequences.
        share: Of the crops, how many should lie within what is kept.
        verify: Compare the content of what is there, and make anew what is damaged.
        scaled: Keep JPEG frames at 1/2, 1/4 or 1/8 of their size where nearly all crops shrink as much anyway. Training with
            `data.scaled_decode` off reads such frames from the dataset.

    Raises:
        UserError: It does not fit (says how many sequences do, and they stay), a file cannot be read or written, or another
            build is under way in the folder.
    """
    extent = find_extent(pairing, share)
    plan = _Plan(pairing.modalities, extent, scaled)
    wanted = {name_entry(sequence): sequence for sequence in sequences if len(sequence) > 1}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder, "`mst data cache`"):
            for half in folder.glob(".half-*"):
                shutil.rmtree(half)
            todo = {key: s for key, s in wanted.items() if not _is_finished(folder / key, s, plan, verify)}
            for key in todo:
                shutil.rmtree(folder / key, ignore_errors=True)
            budget = _Budget(max_bytes, sum(path.stat().st_size for path in folder.glob("*/*") if path.is_file()))
            kept = len(wanted) - len(todo)
            with ThreadPoolExecutor(workers or usable_cores()) as pool:
                jobs = [pool.submit(_make, s, plan, folder / key, budget) for key, s in todo.items()]
                try:
                    for done, job in enumerate(as_completed(jobs), kept + 1):
                        job.result()
                        if progress is not None:
                            progress(done, len(wanted))
                finally:  # after an error, or an interruption, the rest is not begun and what is begun stops
                    budget.stopped = True
                    pool.shutdown(wait=True, cancel_futures=True)
    except _FullError as error:
        done = sum((folder / key / "about.json").is_file() for key in wanted)
        raise UserError(
            f"the crop cache {folder} is full: {done} of {len(wanted)} sequences fit into {max_bytes / 1e9:.2f} GB and are"
            " kept. Allow it more, or name a folder on a larger disk."
        ) from error
    except OSError as error:
        raise UserError(f"the crop cache {folder} cannot be written: {error}.") from error
    return Built(len(todo), kept, budget.used, extent.margin, 1 - share)


class _Plan(NamedTuple):
    """What is kept of every frame."""

    modalities: int
    extent: Extent
    scaled: bool


class _FullError(Exception):
    """No bytes are left."""


class _Budget:
    """The bytes that all threads may write together."""

    def __init__(self, limit: float, used: int) -> None:
        self.limit, self.used, self.stopped = limit, used, False
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        with self._lock:
            if self.stopped or self.used + count > self.limit:
                raise _FullError
            self.used += count

    def give_back(self, count: int) -> None:
        with self._lock:
            self.used -= count


def _is_finished(place: Path, sequence: Sequence, plan: _Plan, verify: bool) -> bool:
    about = read_about(place)
    return (
        about is not None
        and about["modalities"] >= _count(sequence, plan.modalities)
        and about["margin"] >= plan.extent.margin
        and about["shrinkage"] <= (plan.extent.shrinkage if plan.scaled else 0)
        and about["identity"] == identify(sequence)
        and find_damage(place, about, verify) is None
    )


def _make(sequence: Sequence, plan: _Plan, place: Path, budget: _Budget) -> None:
    """Write a sequence beside its place, then move it there."""
    half = Path(tempfile.mkdtemp(prefix=".half-", dir=place.parent))
    written = 0
    try:
        digest = hashlib.sha256()
        count = _count(sequence, plan.modalities)
        table = np.zeros((len(sequence), count), dtype=RECORD)
        identity = identify(sequence)
        with (half / "crops.bin").open("wb") as file:

            def write(data: bytes) -> None:
                nonlocal written
                budget.take(len(data))
                written += len(data)
                digest.update(data)
                file.write(data)

            for index in np.flatnonzero(sequence.valid & (sequence.boxes[:, 2:] > 0).all(axis=1)).tolist():
                for modality in range(count):
                    found = _encode(sequence, index, modality, plan)
                    if found is not None:
                        table[index, modality] = (written, *found[0])
                        write(found[1])
            start = written
            write(table.tobytes())
        about = {
            "version": VERSION,
            "sequence": sequence.name,
            "modalities": count,
            "margin": plan.extent.margin,
            "shrinkage": plan.extent.shrinkage if plan.scaled else 0,
            "table": start,
            "bytes": written,
            "sha256": digest.hexdigest(),
            "identity": identity,
        }
        text = json.dumps(about, indent=1)
        budget.take(len(text))
        written += len(text)
        (half / "about.json").write_text(text)
        half.chmod(0o755)
        half.rename(place)
    except BaseException:
        budget.give_back(written)
        shutil.rmtree(half, ignore_errors=True)
        raise


def _encode(sequence: Sequence, index: int, modality: int, plan: _Plan) -> tuple[tuple[int, ...], bytes] | None:
    """The fields of a frame's record behind its offset, and its lengths and tiles; None where it lacks this modality."""
    files, kind, encoding = (
        (sequence.rgb, "rgb", None) if not modality else (sequence.aux, sequence.modality, sequence.encoding)
    )
    file = files[index] if files is not None else None
    made_of = stamp(file)  # before it is read: a change in between is noticed
    x, y, w, h = sequence.boxes[index]
    target = float(np.sqrt(w * h))
    shrinks = target * plan.extent.shrinkage if plan.scaled else 0
    picture: Picture | str | None = open_reduced(file, kind, encoding, next((by for by in (8, 4, 2) if shrinks >= by), 1))
    if picture is None:
        picture = sequence.open_aux(index) if modality else sequence.open_rgb(index)
    if isinstance(picture, str):
        return None
    raw, by = np.asarray(picture.raw, dtype=np.uint8), picture.reduction
    half = 0.5 * plan.extent.margin * target / by + 2  # the square is of whole pixels
    (row, rows), (column, columns) = (
        _tiles(centre / by - half, centre / by + half, length)
        for centre, length in zip((y + 0.5 * h, x + 0.5 * w), raw.shape, strict=False)
    )
    if rows < 1 or columns < 1:
        return None
    codec, options = _choose_codec(file, kind, raw)
    tiles = []
    for top in range(row * TILE, (row + rows) * TILE, TILE):
        for left in range(column * TILE, (column + columns) * TILE, TILE):
            tile = np.ascontiguousarray(raw[top : top + TILE, left : left + TILE])
            tiles.append(zlib.compress(tile.data, 1) if codec == ZLIB else cv2.imencode(".jpg", tile, options)[1].tobytes())
    lengths = np.array([len(tile) for tile in tiles], dtype="<u4").tobytes()
    channels = raw.shape[2] if raw.ndim == 3 else 1
    fields = (made_of, *picture.shape, row, column, rows, columns, by, channels, codec, FINISHES.index(picture.finish))
    return fields, lengths + b"".join(tiles)


def _tiles(start: float, stop: float, length: int) -> tuple[int, int]:
    """The first tile along an axis that an interval touches, and their number."""
    first, last = int(max(start, 0) // TILE), int(min(stop, length - 1) // TILE)
    return first, last - first + 1


def _choose_codec(file: FrameFile | None, kind: str, raw: NDArray[np.uint8]) -> tuple[int, list[int]]:
    """JPEG where the file is one, with no less colour than it, and for photographs; no loss for depth and rendered events."""
    header = jpeg_header(file.read_bytes()) if isinstance(file, Path) else None
    painted = kind in ("event", "depth") and (header is None or (kind == "depth" and raw.ndim == 2))
    if painted or (raw.ndim == 3 and raw.shape[2] != 3):
        return ZLIB, []
    subsampled = header is not None and header.subsampled
    colour = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if subsampled else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    return JPEG, [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, colour]


def _count(sequence: Sequence, modalities: int) -> int:
    return min(modalities, 1 if sequence.aux is None else 2)
