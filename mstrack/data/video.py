"""Frames of video files, read one after the other where they are asked for in order."""

import ctypes
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence as List
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import cv2
from numpy.typing import NDArray

from mstrack.errors import UserError

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm")
OPEN = 8
"""Videos that a process keeps open."""


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame of a video."""

    path: Path
    index: int

    def decode(self, flags: int) -> NDArray[Any]:
        """H x W x 3 uint8 in BGR order; H x W where `flags` ask for grey."""
        image = _readers.find(self.path).read(self.index)
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if flags == cv2.IMREAD_GRAYSCALE else image

    def __str__(self) -> str:
        return f"{self.path}, frame {self.index}"


@dataclass(frozen=True, slots=True)
class VideoFrames(List[VideoFrame]):
    """The frames of a video as a sequence of references."""

    path: Path
    numbers: range

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> VideoFrame: ...
    @overload
    def __getitem__(self, index: slice) -> "VideoFrames": ...
    def __getitem__(self, index: int | slice) -> "VideoFrame | VideoFrames":
        if isinstance(index, slice):
            return VideoFrames(self.path, self.numbers[index])
        return VideoFrame(self.path, self.numbers[index])


def list_video(path: Path) -> VideoFrames:
    """All frames of a video. They are counted by walking through the file: what a header says may be wrong.

    Raises:
        UserError: The file cannot be opened as a video, or holds no frame.
    """
    return VideoFrames(path, range(_count(path, path.stat().st_mtime_ns if path.exists() else 0)))


@lru_cache(maxsize=256)
def _count(path: Path, changed: int) -> int:
    capture = _open(path)
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    if not count:
        raise UserError(f"video {path} holds no frame that can be read.")
    return count


def _open(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        why = "OpenCV has no decoder for it, or it is damaged" if path.is_file() else "there is no such file"
        raise UserError(f"video {path} cannot be opened: {why}.")
    return capture


class _Reader:
    """One open video. Frames are exact: a frame behind the current one is reached from the start of the file."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()
        self.capture, self.next = _open(path), 0

    def read(self, index: int) -> NDArray[Any]:
        with self.lock:
            if index < self.next:
                self.capture.release()
                self.capture, self.next = _open(self.path), 0
            while self.next < index:
                if not self.capture.grab():
                    raise UserError(f"video {self.path} ends after {self.next} frames; frame {index} was asked for.")
                self.next += 1
            ok, image = self.capture.read()
            if not ok:
                raise UserError(f"video {self.path} ends after {self.next} frames; frame {index} was asked for.")
            self.next += 1
            return image


class _Readers:
    """The open videos of this process; the one that was not used for longest makes room."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Hold nothing."""
        self.lock, self.open = threading.Lock(), OrderedDict[Path, _Reader]()

    def find(self, path: Path) -> _Reader:
        with self.lock:
            reader = self.open.pop(path, None) or _Reader(path)
            self.open[path] = reader
            if len(self.open) > OPEN:
                self.open.popitem(last=False)
            return reader

    def forsake(self) -> None:
        """Begin anew in a forked process, without a touch of what it inherited, not even at its end.

        The threads of the decoders were not copied: to read, or to release, would wait for them for ever. So they get a
        reference that nobody gives back.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.open))
        self.begin()


_readers = _Readers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_readers.forsake)
