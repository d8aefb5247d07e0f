"""Frames of videos: exact, from several threads at once, and from processes that were forked while a video was open."""

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from mstrack.data import video
from mstrack.data.video import VideoFrame, list_video
from mstrack.errors import UserError

FRAMES = 28


def write_video(path: Path, first: int = 20, frames: int = FRAMES) -> Path:
    """Frame i is grey of the level first + 8 i."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (320, 240))
    if not writer.isOpened():
        pytest.skip("OpenCV has no encoder for mp4 here")
    for index in range(frames):
        writer.write(np.full((240, 320, 3), first + 8 * index, dtype=np.uint8))
    writer.release()
    return path


def level(frame: VideoFrame) -> float:
    return float(frame.decode(cv2.IMREAD_GRAYSCALE).mean())


def run(script: str, *arguments: Path) -> str:
    """The output of a script in a process of its own, which is killed where it hangs."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said, failed = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("it hangs")
    assert process.returncode == 0, failed
    return said


def test_frames_are_exact_in_any_order(tmp_path: Path) -> None:
    frames = list_video(write_video(tmp_path / "a.mp4"))
    assert len(frames) == FRAMES
    for index in (0, 1, 20, 19, 3, 27, 0):
        assert level(frames[index]) == pytest.approx(20 + 8 * index, abs=3.5)
    with pytest.raises(UserError, match="ends after 28 frames; frame 28"):
        VideoFrame(frames.path, 28).decode(cv2.IMREAD_COLOR)


def test_threads_share_more_videos_than_stay_open(tmp_path: Path) -> None:
    videos = [list_video(write_video(tmp_path / f"{i}.mp4", first=20 + i, frames=10)) for i in range(video.OPEN + 3)]
    rng = np.random.default_rng(0)
    wanted = [(int(rng.integers(len(videos))), int(rng.integers(10))) for _ in range(120)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda at: level(videos[at[0]][at[1]]), wanted))
    np.testing.assert_allclose(found, [20 + which + 8 * index for which, index in wanted], atol=3.5)
    assert len(video._readers.open) == video.OPEN


def test_loading_processes_read_a_video_that_the_training_has_open(tmp_path: Path) -> None:
    """As in `mst train`: validation follows a clip, then the loading processes are forked."""
    script = """
        import sys
        from pathlib import Path
        import numpy as np
        from mstrack.data.augment import NONE
        from mstrack.data.pairs import Pairing
        from mstrack.data.sampling import PairDataset, batches_of, load_batches
        from mstrack.data.sequence import Sequence
        from mstrack.data.video import list_video

        frames = list_video(Path(sys.argv[1]))
        boxes = np.tile([100.0, 80, 60, 50], (len(frames), 1))
        sequence = Sequence("v", frames, boxes, np.ones(len(frames), bool), frames, "thermal")
        pairs = PairDataset([([sequence],)], Pairing(32, 64, missing="zero"), NONE)
        alone = [batch.search for batch in load_batches(pairs, 0, batches_of(8, 4), workers=0)]
        for _ in range(2):
            forked = [batch.search for batch in load_batches(pairs, 0, batches_of(8, 4), workers=2)]
            print(all((a == b).all() for a, b in zip(alone, forked, strict=True)))
        assert frames[3].decode(1).shape == (240, 320, 3)
        """
    assert run(script, write_video(tmp_path / "a.mp4")).split() == ["True", "True"]


def test_a_forked_process_ends_although_a_video_was_open(tmp_path: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from mstrack.data.video import list_video

        frames = list_video(Path(sys.argv[1]))
        frames[3].decode(1)
        if not (child := os.fork()):
            frames[5].decode(1), frames[2].decode(1)
            sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), abs(frames[4].decode(1).mean() - 52) < 3.5)
        """
    assert run(script, write_video(tmp_path / "a.mp4")).split() == ["7", "True"]
