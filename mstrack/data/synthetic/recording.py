"""One sequence of the embedded benchmark, recorded to disk: a function of (seed, split, index, frames) alone."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np

from mstrack.data.sequence import MODALITIES
from mstrack.data.synthetic.looks import COLOUR_CONDITIONS, FAILURE_RATE, FAILURES, LOOKS, SITUATIONS
from mstrack.data.synthetic.scene import Scene
from mstrack.data.synthetic.sensors import ColourCamera, DepthCamera, EventCamera, ThermalCamera
from mstrack.machine import usable_cores

OCCLUSION_FRAMES = 20
"""Shorter sequences have no time for an occlusion that begins and ends."""
FRAMES_PER_WORKER = 150
"""Fewer are not worth the start of a process."""
JPEG = ("jpg", [cv2.IMWRITE_JPEG_QUALITY, 92])
PNG = ("png", [cv2.IMWRITE_PNG_COMPRESSION, 1])
DEPTH_PNG = ("png", [*PNG[1], cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY])


def draw_attributes(rng: np.random.Generator, split: str, index: int, frames: int) -> tuple[str, ...]:
    """What makes sequence `index` difficult, but for look-alikes, which the scene knows; no camera fails in `pretrain`."""
    drawn = {name for name, rate in SITUATIONS.items() if rng.random() < rate}
    situations = tuple(name for name in SITUATIONS if name in drawn and (name != "occlusion" or frames >= OCCLUSION_FRAMES))
    if split == "pretrain":
        return situations
    failures = tuple(name for name in FAILURES.values() if rng.random() < FAILURE_RATE)
    return COLOUR_CONDITIONS[index % len(COLOUR_CONDITIONS)] + situations + failures


def record(folder: Path, seed: int, split: str, index: int, frames: int) -> None:
    """Write sequence `index` of `split` into the new folder `folder`, in the layout of `synthetic.TREE`.

    Each camera has random numbers of its own, so that no modality depends on another being recorded.
    """
    sources = np.random.SeedSequence((seed, crc32(split.encode()), index)).spawn(6)
    cast, world, *cameras = (np.random.Generator(np.random.SFC64(source)) for source in sources)
    look = LOOKS[split]
    scene = Scene(world, look, draw_attributes(cast, split, index, frames), frames)
    attributes = tuple(scene.attributes)
    (folder / "rgb").mkdir(parents=True)
    colour = ColourCamera(cameras[0], look, attributes)
    three = split != "pretrain"
    if three:
        for name in MODALITIES:
            (folder / name).mkdir()
        thermal = ThermalCamera(cameras[1], look, attributes)
        depth = DepthCamera(cameras[2], look, attributes)
        event = EventCamera(cameras[3], look, attributes)
        event.capture(scene.moment(-1))
    boxes, flags = [], []
    for t in range(frames):
        moment = scene.moment(t)
        boxes.append(",".join(f"{number:.2f}" for number in moment.box) if moment.present else "nan,nan,nan,nan")
        flags.append(str(int(moment.present)))
        _write(folder / "rgb", t, colour.capture(moment, t)[..., ::-1], *JPEG)
        if three:
            _write(folder / "thermal", t, thermal.capture(moment, t), *JPEG)
            _write(folder / "depth", t, depth.capture(moment, t), *DEPTH_PNG)
            _write(folder / "event", t, event.capture(moment), *PNG)
    for name, lines in (("groundtruth", boxes), ("absent", flags), ("attributes", attributes)):
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def record_split(
    folder: Path, seed: int, split: str, counts: tuple[int, int], workers: int | None, step: Callable[[int], None]
) -> None:
    """Write every sequence of a split into `folder`, in this process or shared among several.

    Args:
        folder: Where the sequences' folders go.
        seed: Of everything random.
        split: A name of `looks.LOOKS`.
        counts: Sequences, and frames of each.
        workers: Processes; None: one per core.
        step: Called with the number of frames of each finished sequence, from any thread.

    Raises:
        OSError: A file cannot be written, or a process has failed.
    """
    sequences, frames = counts
    workers = min(workers or usable_cores(), sequences, -(-sequences * frames // FRAMES_PER_WORKER))
    if workers == 1:
        for index in range(sequences):
            record(folder / name_sequence(split, index), seed, split, index, frames)
            step(frames)
        return
    # Plain child processes: multiprocessing would import the caller's main module again, with all that it does.
    code = "import sys; from mstrack.data.synthetic.recording import record_share; record_share(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    children: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for first in range(workers):
                share = [str(folder), str(seed), split, str(frames), str(first), str(sequences), str(workers)]
                command = [sys.executable, "-c", code, *share]
                pipe = subprocess.PIPE
                children.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
            for failure in pool.map(lambda child: _follow(child, lambda: step(frames)), children):
                if failure:
                    raise OSError(failure)
        finally:
            for child in children:
                child.kill()
                child.wait()


def record_share(folder: str, seed: str, split: str, frames: str, first: str, count: str, step: str) -> None:
    """What one of several processes does: every `step`-th sequence from `first`; a line of output for each."""
    cv2.setNumThreads(1)
    for index in range(int(first), int(count), int(step)):
        record(Path(folder) / name_sequence(split, index), int(seed), split, index, int(frames))
        sys.stdout.write(f"{index}\n")
        sys.stdout.flush()


def name_sequence(split: str, index: int) -> str:
    """The folder of a sequence, also its name."""
    return f"{split}_{index:04d}"


def _follow(child: subprocess.Popen[str], step: Callable[[], None]) -> str | None:
    """Wait for a child that prints a line per sequence; its last words where it failed."""
    assert child.stdout is not None and child.stderr is not None
    for _ in child.stdout:
        step()
    words = child.stderr.read().strip()
    return (words.splitlines() or ["a process was killed"])[-1] if child.wait() else None


def _write(folder: Path, t: int, image: np.ndarray, kind: str, options: list[int]) -> None:
    _, data = cv2.imencode(f".{kind}", image, options)
    (folder / f"{t:06d}.{kind}").write_bytes(data.tobytes())
