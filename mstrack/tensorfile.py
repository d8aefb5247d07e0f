"""Safetensors files, written in one step: after a crash or on a full disk the old file or the new one is there, whole."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mstrack.errors import UserError
from mstrack.results import replacing

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file: a temporary file in the same folder, flushed to the disk, then renamed.

    The library's own writer keeps the interpreter locked until gigabytes are on the disk, and gives its files mode 0600. The
    format is a length, a JSON header and the numbers, so it is written here, one tensor at a time.

    Args:
        path: The file; its folder is made.
        tensors: On any device. Entries that share memory are written as often as they are named.
        metadata: Text for the header.

    Raises:
        UserError: The file cannot be written; what was there before is intact, and nothing else is left.
    """
    # Widest numbers first: every tensor then starts at a multiple of its item size, as readers that map the file need.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as part, part.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in ordered:
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a safetensors file; where another process replaces it meanwhile, all that is read is of the older one.

    Returns:
        The metadata, and the tensors on the CPU, in memory of their own.

    Raises:
        UserError: Not such a file, or only a part of one.
    """
    try:
        with path.open("rb") as held, safe_open(_name_open(held, path), framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file, or only a part of one: {error}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def _name_open(file: BinaryIO, path: Path) -> Path:
    """A name by which an open file can be opened again, as safetensors and torch each do, whatever lies at its path by then."""
    name = Path(f"/proc/self/fd/{file.fileno()}")
    return name if name.exists() else path
