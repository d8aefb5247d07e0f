"""Crops of frames for training: from the cache of crops, from frames in memory or from files, decoding no more than is used."""

from collections import OrderedDict
from collections.abc import Hashable
from collections.abc import Sequence as List
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mstrack.data.cropcache import CropCache, Tiles
from mstrack.data.crops import Finish, Raster, crop, crop_reduced, reduction_for, square_around
from mstrack.data.images import Image, Picture, open_reduced
from mstrack.data.sequence import Frame, Sequence, fill
from mstrack.errors import UserError


class Cut(NamedTuple):
    """Which square is cut out of a frame; see `crops.crop`."""

    around: NDArray[np.float64]
    factor: float
    size: int


class Cutout(NamedTuple):
    """What was cut out of a frame."""

    images: list[Image | None]
    """For each modality size x size x 3 uint8 in RGB order; None where it was not asked for, or is missing."""
    scale: float
    """`crops.Crop.scale`."""
    frame: tuple[int, ...]
    """(H, W) of the frame."""


class LackingError(UserError):
    """A frame lacks its second modality, and the policy is `error`.

    Attributes:
        reason: Why there is none.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (str(self), self.reason)


class Cutter:
    """Cuts squares out of frames. Nothing is kept between calls but for the frames that `cache_bytes` allows.

    Args:
        missing: What is done about frames without their second modality, a name of `sequence.POLICIES`.
        cache_bytes: Decoded frames that are kept; such frames are decoded whole.
        scaled: Whether JPEG files are decoded at 1/2, 1/4 or 1/8 of their size where the crops shrink as much anyway.
        stored: The cache of crops, or None.
    """

    def __init__(self, missing: str, cache_bytes: float, scaled: bool, stored: CropCache | None) -> None:
        self.missing, self.stored = missing, stored
        self.scaled = scaled and not cache_bytes
        self._memory = _Memory(cache_bytes)

    def cut(self, sequence: Sequence, index: int, cuts: List[Cut], wanted: List[bool]) -> list[Cutout]:
        """Cut squares out of one frame; each of its files is opened once, and only where it is needed.

        A frame without its second modality keeps its colours, wanted or not.

        Args:
            sequence: The sequence.
            index: Which frame.
            cuts: The squares.
            wanted: For each modality, whether it is used.

        Raises:
            UserError: A file cannot be read; the modalities differ in size.
            LackingError: The second modality is missing, and the policy is `error`.
        """
        second = self._open(sequence, index, 1, cuts) if len(wanted) > 1 and wanted[1] else None
        colour = self._open(sequence, index, 0, cuts) if wanted[0] or isinstance(second, str) else None
        if isinstance(second, _Source) and isinstance(colour, _Source) and second.shape != colour.shape:
            raise UserError(
                f"{_name(sequence, index)}: the modalities differ in size, {colour.shape} and {second.shape} (H, W)."
            )
        found = []
        for number, cut in enumerate(cuts):
            stacked = len(wanted) > 1
            images = [source.cut(cut, stacked) if isinstance(source, _Source) else None for source in (colour, second)]
            if isinstance(second, str) and images[0] is not None:
                images[1] = self._fill(sequence, index, images[0], second, cuts, number)
            frame = next(source.shape for source in (colour, second) if isinstance(source, _Source))
            scale = cut.size / square_around(cut.around, cut.factor).side
            found.append(Cutout(images[: len(wanted)], scale, frame))
        return found

    def _fill(self, sequence: Sequence, index: int, colour: Image, lacking: str, cuts: List[Cut], number: int) -> Image | None:
        """What the policy puts in the place of a crop of the second modality."""
        last = None
        if self.missing == "last":
            earlier = (self._open(sequence, i, 1, cuts) for i in range(index - 1, -1, -1))
            last = next((source.cut(cuts[number], True) for source in earlier if isinstance(source, _Source)), None)
        try:
            return fill(Frame(colour, None, lacking), self.missing, last, _name(sequence, index)).aux
        except UserError as error:
            raise LackingError(str(error), lacking) from error

    def _open(self, sequence: Sequence, index: int, modality: int, cuts: List[Cut]) -> "_Source | str":
        """A modality of a frame as something to cut these squares from, or why there is none."""
        if self.stored is not None:
            tiles = self.stored.find(sequence, index, modality)
            if tiles is not None and all(self._serves(tiles, cut) for cut in cuts):
                return _Source(tiles.size, tiles, tiles.finish, tiles.reduction)
        files = sequence.aux if modality else sequence.rgb
        file = None if files is None else files[index]
        picture = self._memory.get((file, modality))
        if picture is None and self.scaled:
            kind, encoding = (sequence.modality, sequence.encoding) if modality else ("rgb", None)
            picture = open_reduced(file, kind, encoding, min(reduction_for(*cut) for cut in cuts))
        if picture is None:
            opened = sequence.open_aux(index) if modality else sequence.open_rgb(index)
            if isinstance(opened, str):
                return opened
            picture = opened
            self._memory.put((file, modality), picture)
        return _Source(picture.shape, picture.raw, picture.finish, picture.reduction)

    def _serves(self, tiles: Tiles, cut: Cut) -> bool:
        """Whether a square can be cut from what is kept."""
        reduced = tiles.reduction == 1 or (self.scaled and reduction_for(*cut) >= tiles.reduction)
        return reduced and tiles.covers(square_around(cut.around, cut.factor))


class _Source(NamedTuple):
    """Where squares are cut from."""

    shape: tuple[int, ...]
    """(H, W) of the frame."""
    raster: Raster
    finish: Finish
    reduction: int = 1

    def cut(self, cut: Cut, stacked: bool) -> Image:
        if self.reduction > 1:
            return crop_reduced(self.raster, self.shape, self.reduction, *cut, finish=self.finish).image
        return crop(self.raster, *cut, finish=self.finish, stacked=stacked).image


class _Memory:
    """The most recently used pictures, up to a number of bytes."""

    def __init__(self, capacity: float) -> None:
        self.capacity, self.size = capacity, 0
        self.pictures: OrderedDict[Hashable, Picture] = OrderedDict()

    def get(self, key: Hashable) -> Picture | None:
        if key in self.pictures:
            self.pictures.move_to_end(key)
        return self.pictures.get(key)

    def put(self, key: Hashable, picture: Picture) -> None:
        if picture.raw.nbytes <= self.capacity:
            self.pictures[key] = picture
            self.size += picture.raw.nbytes
            while self.size > self.capacity:
                self.size -= self.pictures.popitem(last=False)[1].raw.nbytes


def _name(sequence: Sequence, index: int) -> str:
    return f"sequence '{sequence.name}', frame {index}"
