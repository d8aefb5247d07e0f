"""Published `.pth` and `.pth.tar` files: the two formats of `torch.save`, read without running what is in them."""

import pickle
import struct
import zipfile
from pathlib import Path
from typing import IO, Protocol

import torch
from torch import Tensor

from mstrack.errors import UserError
from mstrack.unpickling import Description, RefusedError, RestrictedUnpickler, Storage

MAGIC = 0x1950A86A20F9469CFC6C
"""First object of a file written by torch before 1.6."""

_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _Archive(Protocol):
    """One of the two file formats: the object it holds, and the bytes of a storage."""

    def tree(self) -> object: ...

    def data(self, storage: Storage) -> bytearray: ...


class _ZipArchive:
    """torch 1.6 and later: a zip file with `NAME/data.pkl` and `NAME/data/KEY`, not compressed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.zip = zipfile.ZipFile(file)
        pickles = [name for name in self.zip.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("no data.pkl in the zip file")
        self.folder = pickles[0].removesuffix("/data.pkl")
        order = f"{self.folder}/byteorder"
        if order in self.zip.namelist() and self.zip.read(order) != b"little":
            raise ValueError("its numbers are big-endian")

    def tree(self) -> object:
        with self.zip.open(f"{self.folder}/data.pkl") as file:
            return RestrictedUnpickler(file).load()

    def data(self, storage: Storage) -> bytearray:
        entry = self.zip.getinfo(f"{self.folder}/data/{storage.key}")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError("its numbers are compressed")
        return bytearray(self.zip.read(entry))


class _LegacyArchive:
    """torch before 1.6: five pickles (magic, protocol, system, object, keys), then per key a count and that many numbers."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.places: dict[str, tuple[int, int]] = {}

    def tree(self) -> object:
        if RestrictedUnpickler(self.file).load() != MAGIC:
            raise ValueError("it does not begin like a file written by torch.save")
        for _ in ("protocol", "system"):
            RestrictedUnpickler(self.file).load()
        unpickler = RestrictedUnpickler(self.file)
        tree = unpickler.load()
        for key in RestrictedUnpickler(self.file).load():
            (count,) = struct.unpack("<q", self.file.read(8))
            length = count * unpickler.item_sizes[key]
            if length < 0:
                raise ValueError(f"storage {key!r} has {count} numbers")
            self.places[key] = (self.file.tell(), length)
            self.file.seek(length, 1)
        return tree

    def data(self, storage: Storage) -> bytearray:
        place, length = self.places[storage.key]
        self.file.seek(place)
        data = bytearray(self.file.read(length))
        if len(data) != length:
            raise EOFError("it ends in the middle of its numbers")
        return data


def _read(archive: _Archive, description: Description) -> Tensor:
    """Read the numbers of one tensor; it owns its memory and is contiguous."""
    storage, offset, shape, stride = description
    data = archive.data(storage)
    numbers = torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)
    tensor = numbers[storage.start :].as_strided(shape, stride, offset)
    if tensor.numel() > numbers.numel():
        raise ValueError(f"a tensor of shape {shape} claims more numbers than the file holds for it")
    return tensor.clone(memory_format=torch.contiguous_format)


def _find_state_dict(tree: object) -> dict[str, Description]:
    """The part of a checkpoint that holds the weights: `net` of the OSTrack family, or the names in use elsewhere."""
    if not isinstance(tree, dict):
        raise ValueError("it does not hold a dictionary")
    nested = [tree[key] for key in ("net", "model", "state_dict") if isinstance(tree.get(key), dict)]
    entries: dict[object, object] = nested[0] if nested else tree
    found = {str(name): value for name, value in entries.items() if isinstance(value, Description)}
    if not found:
        raise ValueError(f"it holds no weights, only {', '.join(map(str, entries)) or 'nothing'}")
    if all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): value for name, value in found.items()}
    return found


def read_published(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a file written by `torch.save`, without running the file.

    Args:
        path: A `.pth` or `.pth.tar` file, of torch 1.6 and later (zip) or of earlier ones.

    Returns:
        The state dict (the entry `net`, `model` or `state_dict`, or else the file's own dictionary) under its published
        names, on the CPU. Optimizer state and everything else in the file is not read.

    Raises:
        UserError: The file would run code, is truncated, or holds no weights.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            archive: _Archive = _ZipArchive(file) if zipped else _LegacyArchive(file)
            return {name: _read(archive, value) for name, value in _find_state_dict(archive.tree()).items()}
    except RefusedError as error:
        raise UserError(
            f"{path} is refused: it would {error}. A checkpoint that only holds weights does not; if you trust whoever made "
            "it, save its state dict alone and convert that."
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except _UNREADABLE as error:
        raise UserError(
            f"{path} is no checkpoint that mstrack can read: {error}. Expected a whole file written by torch.save, with the "
            "weights as a dictionary, alone or under `net`, `model` or `state_dict`."
        ) from error
