"""A folder or a zip archive as one thing: the files in it by name, read in memory and within limits."""

import os
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mstrack.errors import UserError

LARGEST = 64 * 2**20
"""Bytes of a file; annotations and results of the longest sequences take a hundredth of it."""
TOTAL = 2 * 2**30
"""Bytes that are unpacked of one archive."""
DEPTH = 8
"""Levels of folders below the given one."""


@dataclass(frozen=True)
class File:
    """A file of a folder or an archive; its methods are those of a `Path`, so readers of annotations take it for one.

    Attributes:
        name: Path below the folder or in the archive, with `/`.
        where: What messages call it.
    """

    name: str
    where: str
    _read: Callable[[], bytes]

    def __str__(self) -> str:
        return self.where

    def is_file(self) -> bool:
        """True."""
        return True

    def read_bytes(self) -> bytes:
        """The content.

        Raises:
            UserError: It is larger than `LARGEST`, cannot be read, or is damaged.
        """
        return self._read()

    def read_text(self, encoding: str = "utf-8-sig") -> str:
        """The content as text; what begins with a mark of UTF-16 is read as that.

        Raises:
            UserError: As `read_bytes`; or it is no text.
        """
        data = self._read()
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            encoding = "utf-16"
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            raise UserError(f"{self.where} is not a text file.") from error


Files = dict[str, File]
"""Name -> file, in the order of the names."""


def is_archive(path: Path) -> bool:
    """Whether a path is called like an archive that can be read."""
    return path.suffix.lower() == ".zip"


def list_files(path: Path, skip: Collection[str] = (), suffixes: Collection[str] = ()) -> Files:
    """The files of a folder or an archive; hidden ones are left out.

    Args:
        path: Where.
        skip: Names of folders that are not searched.
        suffixes: Only files with one of these, in small letters; none: all.

    Raises:
        UserError: There is no such path; it is neither; or the archive is damaged, or holds a name that leads out of it.
    """

    def wanted(name: str) -> bool:
        return not suffixes or PurePosixPath(name).suffix.lower() in suffixes

    if path.is_dir():
        found = {name: _file_on_disk(path, name) for name in _walk(path, "", frozenset(skip), DEPTH) if wanted(name)}
    elif not path.exists():
        raise UserError(f"there is no file or folder {path}.")
    elif is_archive(path) or zipfile.is_zipfile(path):
        found = {name: file for name, file in _list_archive(path, frozenset(skip)).items() if wanted(name)}
    else:
        raise UserError(f"{path} is neither a folder nor a zip archive.")
    return dict(sorted(found.items()))


def _walk(root: Path, below: str, skip: frozenset[str], levels: int) -> Iterator[str]:
    try:
        entries = list(os.scandir(root / below))
    except OSError as error:
        raise UserError(f"folder {root / below} cannot be read: {error.strerror}.") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield below + entry.name
        elif levels and entry.name not in skip:
            yield from _walk(root, f"{below}{entry.name}/", skip, levels - 1)


def _file_on_disk(root: Path, name: str) -> File:
    path = root / name

    def read() -> bytes:
        try:
            with path.open("rb") as handle:
                _check_size(os.fstat(handle.fileno()).st_size, str(path))
                return handle.read(LARGEST)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from error

    return File(name, str(path), read)


def _list_archive(path: Path, skip: frozenset[str]) -> Files:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{path} is not a zip archive that can be read ({error}).") from error
    left = TOTAL

    def reader(info: zipfile.ZipInfo, where: str) -> Callable[[], bytes]:
        def read() -> bytes:
            nonlocal left
            try:
                _check_size(info.file_size, where)
                with archive.open(info) as handle:
                    data = handle.read()
            except (OSError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise UserError(f"{where} cannot be unpacked ({error}). Unpack the archive, and name the folder.") from error
            left -= len(data)
            if left < 0:
                raise UserError(f"{path} unpacks to more than {TOTAL >> 30} GB. Unpack it, and name the folder.")
            return data

        return read

    found: Files = {}
    for info in archive.infolist():
        name = _check_name(path, info.filename)
        parts = name.split("/")
        if info.is_dir() or not name or any(part.startswith(".") or part == "__MACOSX" or part in skip for part in parts):
            continue
        where = f"{path}/{name}"
        found.setdefault(name, File(name, where, reader(info, where)))
    return found


def _check_name(path: Path, name: str) -> str:
    """The name of a member with `/` between its parts.

    Raises:
        UserError: It would lie outside of the folder that the archive is unpacked to.
    """
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or re.match(r"[A-Za-z]:", name) or not name.isprintable():
        raise UserError(
            f"{path} holds a file called {name!a}, which leads out of the archive or is no name: it is not read."
            " Make the archive anew, with plain names."
        )
    return "/".join(part for part in parts if part not in ("", "."))


def _check_size(size: int, where: str) -> None:
    if size > LARGEST:
        raise UserError(f"{where} is larger than {LARGEST >> 20} MB: no annotation or result of a sequence is.")
