"""Who is at work on what, for any number of processes that share nothing but a folder: claim files.

A claim is the file `.claims/NAME.1`, made in a way that only one process can. Where its owner is dead, `NAME.2` is the claim,
and so on: nothing is ever taken away from a path that another process may be looking at. Claims only save work: should two
processes ever hold the same one (a machine that was silent for long, a folder with slow news), both write the same results.
"""

import contextlib
import hashlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from mstrack.errors import UserError

try:
    import fcntl
except ImportError:  # not on this system: nobody is kept out
    fcntl = None  # type: ignore[assignment]

FOLDER = ".claims"
LONGEST = 200
"""Characters of a name in a file's name; of longer ones it holds the hash."""
BEAT = 15.0
"""Seconds between two signs of life of a process that holds claims."""
LOST = 120.0
"""Seconds of silence after which a process on another machine counts as dead."""
SILENT = "alive"
"""When a process began, where the system does not say: its number may be another's by now."""


_HELD: set[Path] = set()


@contextlib.contextmanager
def alone(folder: Path, work: str) -> Iterator[None]:
    """Keep others from the same work in a folder; where its file system knows no locks, nobody is kept out.

    Args:
        folder: Where; it is made.
        work: What is done there, as the others are told.

    Raises:
        UserError: Somebody is at it; or the folder cannot be written.
    """
    path = folder.resolve() / ".lock"
    busy = f"another {work} is under way in {folder}: wait until it is done, or name another folder."
    if path in _HELD:
        raise UserError(busy)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("w")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}.") from error
    with handle:
        if fcntl:
            try:  # a lock of this process alone: those that it starts must not hold it longer than it lives
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise UserError(busy) from error
            except OSError:
                pass
        _HELD.add(path)
        try:
            yield
        finally:
            _HELD.discard(path)


class Claims:
    """The claims of this process on names, such as those of sequences, in a folder. A context: what it holds ends with it.

    Args:
        folder: Shared by all that work on these names.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.held: dict[str, Path] = {}
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._beating.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._beating.join()
        for name in list(self.held):
            self.release(name)
        with contextlib.suppress(OSError):  # others have claims there
            self.folder.rmdir()

    def take(self, name: str) -> bool:
        """Claim a name, unless somebody who is alive has it.

        Raises:
            UserError: The folder cannot be written, or the disk is full.
        """
        last = self._last(name)
        if last and self._is_alive(self._path(name, last)):
            return False
        path = self._path(name, last + 1)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = path.open("x", encoding="utf-8")
        except (FileExistsError, FileNotFoundError):  # or the folder went with the last claim: the next look will tell
            return False
        except OSError as error:
            raise UserError(f"{path} cannot be made: {error.strerror or error}.") from error
        try:
            with file:
                json.dump(_identity(os.getpid()), file)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
        self.held[name] = path
        return True

    def is_free(self, name: str) -> bool:
        """Whether nobody who is alive has claimed it."""
        last = self._last(name)
        return not last or not self._is_alive(self._path(name, last))

    def release(self, name: str) -> None:
        """Give up a claim, because the work is done or nobody will do it; with it go those of the dead before."""
        self.held.pop(name)
        for number in range(self._last(name), 0, -1):
            self._path(name, number).unlink(missing_ok=True)

    def _path(self, name: str, number: int) -> Path:
        spelled = quote(name, safe="", errors="surrogateescape")
        if len(spelled) > LONGEST:
            spelled = hashlib.sha256(spelled.encode()).hexdigest()
        return self.folder / f"{spelled}.{number}"

    def _last(self, name: str) -> int:
        """The number of the newest claim, 0 where there is none."""
        number = 0
        while self._path(name, number + 1).exists():
            number += 1
        return number

    def _is_alive(self, path: Path) -> bool:
        """Whether the owner of a claim is at work, as far as can be told from here."""
        try:
            text, beat = path.read_text(encoding="utf-8"), path.stat().st_mtime
        except OSError:  # released a moment ago: the next look will tell
            return True
        try:
            owner = json.loads(text)
            if owner["machine"] == _machine():
                found = _identity(owner["pid"])
                if owner != found or found["started"] != SILENT:
                    return bool(owner == found)
        except (ValueError, KeyError, TypeError):
            pass  # not written to the end: by one who has just begun, or died of it
        try:
            return self._now() - beat < LOST
        except FileNotFoundError:  # the last claim went a moment ago, and the folder with it
            return True

    def _now(self) -> float:
        """The time of the clock that the file system stamps files with."""
        probe = self.folder / f"{quote(_machine(), safe='')}-{os.getpid()}.clock"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return now

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            for path in list(self.held.values()):
                with contextlib.suppress(OSError):
                    os.utime(path)


def anybody_at_work(folder: Path) -> bool:
    """Whether a process that is alive holds a claim in the folder."""
    claims = Claims(folder)
    try:
        held = [path for path in claims.folder.glob("*.*") if path.suffix[1:].isdigit()]
    except FileNotFoundError:  # the last claim went a moment ago, and the folder with it
        return False
    return any(map(claims._is_alive, held))


def _identity(pid: int) -> dict[str, str | int]:
    """What tells a process from all others, on this machine and elsewhere, even where its number is used again."""
    return {"machine": _machine(), "pid": pid, "started": _started(pid)}


def _machine() -> str:
    """This machine since it was switched on; of containers, this one."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _started(pid: int) -> str:
    """When a process began, in the words of Linux; `SILENT` where those are not to be had; "" where it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:
        pass
    if sys.platform != "win32":  # there, signal 0 is Ctrl-C
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except OSError:
            pass
    return SILENT
