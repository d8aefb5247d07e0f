"""Recordings of event cameras as frames: a tree of them converted on disk, in parallel; and the public names of the rest."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cv2

from mstrack.data.events.cache import EventFrame, EventFrames, render_frames
from mstrack.data.events.files import SUFFIXES, RecordingInfo, holds_events, open_recording, recording_info
from mstrack.data.events.folders import DESCRIPTION, Converted, convert
from mstrack.data.events.recipes import RECIPES, find_recipe
from mstrack.data.events.times import Timing, UnknownTimesError
from mstrack.data.events.windows import stream
from mstrack.errors import DataWarning, UserError, warn
from mstrack.machine import usable_cores

__all__ = [
    "RECIPES",
    "SUFFIXES",
    "Converted",
    "EventFrame",
    "EventFrames",
    "RecordingInfo",
    "Timing",
    "UnknownTimesError",
    "convert",
    "convert_tree",
    "find_recordings",
    "open_recording",
    "recording_info",
    "render_frames",
    "stream",
]

Progress = Callable[[int, int, str], None]


def find_recordings(root: Path | str) -> list[Path]:
    """The event recordings at or below `root`, sorted; hidden folders and folders of event frames are not searched.

    Links to folders are followed, each folder is searched once.

    Raises:
        UserError: There is none.
    """
    root = Path(root)
    if root.is_file():
        return [root]
    found = []
    for folder, names in _walk(root):
        paths = (Path(folder, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES)
        found += [path for path in paths if holds_events(path)]
    if not found:
        what = f"holds no event recording ({', '.join(SUFFIXES)})" if root.is_dir() else "does not exist"
        raise UserError(f"{root} {what}.")
    return sorted(found)


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of its files) at and below a root, links after everything that lies there itself."""
    visited: set[tuple[int, int]] = set()
    tops = [root]
    for top in tops:
        for folder, below, names in os.walk(top):
            place = Path(folder)
            identity = place.stat().st_dev, place.stat().st_ino
            known = identity in visited or DESCRIPTION in names
            within = [] if known else sorted(name for name in below if not name.startswith("."))
            links = [name for name in within if os.path.islink(place / name)]  # noqa: PTH114 - no error where it is not allowed
            below[:] = [name for name in within if name not in links]
            if identity in visited:
                continue
            visited.add(identity)
            above = (place.resolve(), *place.resolve().parents) if links else ()  # a link there leads out of the root
            tops += [place / name for name in links if (place / name).resolve() not in above]
            yield place, names


def convert_tree(
    root: Path | str,
    recipe: str,
    out: Path | str | None = None,
    workers: int | None = None,
    with_frames: bool = False,
    times: Path | str | None = None,
    fps: float | None = None,
    partial: bool = False,
    progress: Progress | None = None,
) -> list[Converted]:
    """Convert every recording at or below `root`, in parallel; what is there already is kept.

    Args:
        root: A folder, or one recording.
        recipe: A name of `recipes.RECIPES`.
        out: Folder for the frames, in which the tree of `root` is repeated; None: beside the recordings.
        workers: Processes; None: one per core.
        with_frames: Also write the cameras' own frames, to `rgb`.
        times: Text file with the times of the frames (see `Timing`), or the name of such a file beside each recording.
        fps: Frames per second from the first event on, instead.
        partial: Keep what damaged recordings hold before the damage.
        progress: Called with the numbers of finished and of all recordings, and what became of the last one.

    Returns:
        What became of each, in the order of `find_recordings`.

    Raises:
        UserError: No recording, unknown recipe; or, after all others are done, the list of those that could not be converted.
    """
    find_recipe(recipe)
    root = Path(root)
    top = root.parent if root.is_file() else root
    jobs = [
        {
            "path": str(path),
            "recipe": recipe,
            "out": None if out is None else str(Path(out) / path.parent.relative_to(top)),
            "with_frames": with_frames,
            "times": _find_times(times, path),
            "fps": fps,
            "partial": partial,
        }
        for path in find_recordings(root)
    ]
    results: dict[int, Converted] = {}
    failures: dict[int, str] = {}
    with contextlib.closing(_convert_all(jobs, workers or usable_cores())) as outcomes:
        for index, outcome in outcomes:
            if isinstance(outcome, Converted):
                results[index] = outcome
            else:
                failures[index] = outcome
            if progress:
                text = f"{Path(str(jobs[index]['path'])).name}: failed" if index in failures else str(results[index])
                progress(len(results) + len(failures), len(jobs), text)
    if failures and len(jobs) == 1:
        raise UserError(failures[0])
    if failures:
        lines = "".join(f"\n- {text}" for _, text in sorted(failures.items()))
        raise UserError(f"{len(failures)} of {len(jobs)} recordings could not be converted, the others are done:{lines}")
    return [results[index] for index in range(len(jobs))]


def _find_times(times: Path | str | None, path: Path) -> str | None:
    """The file of times of one recording: `times` itself, or that of this name beside the recording."""
    if times is None or Path(times).is_file() or Path(times).is_absolute():
        return None if times is None else str(times)
    return str(path.parent / times)


def _convert_all(jobs: list[dict[str, Any]], workers: int) -> Generator[tuple[int, Converted | str]]:
    """(number, result or what went wrong) of each job as it is done; one process per recording where there are several."""
    workers = min(workers, len(jobs))
    if workers == 1:
        for index, job in enumerate(jobs):
            try:
                yield index, _convert_job(job)
            except UserError as error:
                yield index, str(error)
        return
    children: set[subprocess.Popen[str]] = set()
    stopped = threading.Event()
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(_convert_in_child, job, children, stopped): index for index, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                outcome, notes = future.result()
                for note in notes:
                    warn(*note)
                yield futures[future], outcome
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            stopped.set()
            for child in list(children):
                child.terminate()


def _convert_job(job: dict[str, Any]) -> Converted:
    timing = Timing(Path(job["times"]) if job["times"] else None, job["fps"])
    options = {"with_frames": job["with_frames"], "timing": timing, "partial": job["partial"]}
    return convert(job["path"], job["recipe"], job["out"], **options)


def _convert_in_child(
    job: dict[str, Any], children: set[subprocess.Popen[str]], stopped: threading.Event
) -> tuple[Converted | str, list[list[str]]]:
    """Convert in a process of its own, which a broken file may take down; (result or what went wrong, warnings)."""
    # A plain child process: multiprocessing would import the caller's main module again, with all that it does.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    command = [sys.executable, "-c", "from mstrack.data.events import serve; serve()"]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    children.add(child)
    if stopped.is_set():
        child.terminate()
    try:
        output, complaint = child.communicate(json.dumps(job))
    finally:
        children.discard(child)
    try:
        answer = json.loads(output)
    except ValueError:
        words = (complaint.strip().splitlines() or [f"its process ended with code {child.returncode}"])[-1]
        return f"recording {job['path']} could not be converted: {words}.", []
    if "error" in answer:
        return answer["error"], answer["warnings"]
    source, folder, *rest = answer["result"]
    return Converted(Path(source), Path(folder), *rest), answer["warnings"]


def serve() -> None:
    """What a child process does: the job on its standard input; the answer goes to its standard output."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a temporary folder is removed
    cv2.setNumThreads(1)
    job = json.loads(sys.stdin.read())
    answer: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        try:
            done = _convert_job(job)
            counts = (done.frames, done.events, done.state, done.reason, done.start)
            answer["result"] = [str(done.source), str(done.folder), *counts]
        except UserError as error:
            answer["error"] = str(error)
    found = [note.message for note in notes]
    answer["warnings"] = [[note.sequence, note.kind, note.text] for note in found if isinstance(note, DataWarning)]
    sys.stdout.write(json.dumps(answer))
