"""The commands as a user types them: what they print, what they refuse, and how."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import cv2
import moving_squares
import numpy as np
import pytest
import yaml
from commands import mst

from mstrack import __version__, checkpoint, create_model
from mstrack.clip import open_clip
from mstrack.errors import DataWarning
from mstrack.registry import TABLES
from mstrack.results import read_track


def assert_refused(done: subprocess.CompletedProcess[str], *fragments: str) -> None:
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    assert "0/?" not in done.stderr, "a bar of work that never began"
    for fragment in fragments:
        assert fragment in done.stderr, done.stderr


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip in two folders, with its tracker."""
    root = tmp_path_factory.mktemp("clip")
    moving_squares.load(root, "test", sequences=1)
    small = create_model("mst-tiny", width=32, depth=2, heads=2, cross_layers=(1,))
    checkpoint.save(root / "small.safetensors", small, {"note": "random weights"})
    return root


def folders(clip: Path) -> tuple[Path, Path]:
    return clip / "test" / "square0" / "rgb", clip / "test" / "square0" / "thermal"


def test_help_names_every_command() -> None:
    done = mst("--help")
    assert done.returncode == 0
    for name in ("quickstart", "train", "track", "eval", "list", "config", "info", "convert"):
        assert name in done.stdout


def test_output_that_goes_nowhere_or_knows_no_signs() -> None:
    command = f"{sys.executable} -m mstrack list tunings"
    assert subprocess.run(f"{command} >&-", shell=True, capture_output=True, text=True).stderr == ""
    for names in ({"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}):
        done = subprocess.run([*command.split(" "), "--help"], capture_output=True, env=os.environ | names)
        assert done.returncode == 0 and b"Usage" in done.stdout


def test_version() -> None:
    assert mst("--version").stdout == f"mstrack {__version__}\n"


@pytest.mark.parametrize("kind", [*TABLES, "recipes", "weights"])
def test_list(kind: str) -> None:
    done = mst("list", kind)
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    files = (resources.files("mstrack") / kind).iterdir() if kind not in TABLES else ()
    assert [name for name, *_ in rows] == sorted(TABLES.get(kind) or (Path(f.name).stem for f in files))
    assert all(len(row) == 2 and len(row[1]) > 20 and "partial(" not in row[1] for row in rows)


def test_config_show_is_a_recipe(tmp_path: Path) -> None:
    done = mst("config", "show", "recipes/quickstart.yaml", "train.lr=0.5")
    assert done.returncode == 0
    (tmp_path / "own.yaml").write_text(done.stdout)
    again = mst("config", "show", tmp_path / "own.yaml")
    assert again.stdout == done.stdout
    assert "lr: 0.5" in done.stdout
    explained = mst("config", "show", "recipes/quickstart.yaml", "train.lr=0.5", "--explain").stdout
    assert yaml.safe_load(explained) == yaml.safe_load(done.stdout)
    for meant in ("# the second modality\n  modality: thermal", "# which of the dataset's splits\n    split: train"):
        assert meant in explained
    assert "# a name of `mst list datasets`, module:function, or a folder of your own data\n  - name: synthetic" in explained


def test_track_writes_boxes_and_pictures(clip: Path, tmp_path: Path) -> None:
    rgb, aux = folders(clip)
    stale, another = (tmp_path / "o" / "frames" / name for name in ("000999.jpg", "mine.jpg"))
    stale.parent.mkdir(parents=True)
    stale.touch(), another.touch()
    done = mst("track", clip / "small.safetensors", "--rgb", rgb, "--aux", aux, "--box", "38,40,16,14", "--out", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    track = read_track(tmp_path / "o", "track")
    assert track is not None
    assert track.boxes.shape == (moving_squares.FRAMES, 4)
    np.testing.assert_allclose(track.boxes[0], [38, 40, 16, 14])
    assert another.exists()
    another.unlink()
    pictures = sorted((tmp_path / "o" / "frames").iterdir())
    assert len(pictures) == moving_squares.FRAMES
    picture = cv2.imread(str(pictures[0]))
    assert picture.shape == (moving_squares.SIDE, 2 * moving_squares.SIDE, 3)


def test_track_writes_a_video(clip: Path, tmp_path: Path) -> None:
    rgb, aux = folders(clip)
    out = tmp_path / "o"
    done = mst("track", clip / "small.safetensors", "--rgb", rgb, "--aux", aux, "--box", "38,40,16,14", "--out", out, "--video")
    assert done.returncode == 0, done.stderr
    video = cv2.VideoCapture(str(out / "track.mp4"))
    frames = 0
    while video.read()[0]:
        frames += 1
    assert frames == moving_squares.FRAMES


def test_track_without_the_second_modality(clip: Path, tmp_path: Path) -> None:
    rgb, aux = folders(clip)
    command = ["track", clip / "small.safetensors", "--rgb", rgb, "--box", "38,40,16,14", "--out", tmp_path / "o"]
    assert_refused(mst(*command), "frame 0: no aux image is given", "--missing")
    done = mst(*command, "--missing", "zero")
    assert done.returncode == 0, done.stderr
    assert f"{moving_squares.FRAMES} frame(s) lacked their second modality: --missing zero" in done.stdout
    holey = tmp_path / "aux"
    shutil.copytree(aux, holey)
    (holey / "0005.png").unlink()
    assert_refused(mst(*command, "--aux", holey), "12 frames", "has 11: 1 colour frame(s) lack", "--missing")
    fewer = tmp_path / "rgb"
    shutil.copytree(rgb, fewer)
    for name in ("0000", "0005", "0011"):
        next(fewer.glob(f"{name}.*")).unlink()
    with pytest.warns(DataWarning, match=r"paired by the numbers in their names: 3 thermal frame\(s\) are ignored"):
        count, frames = open_clip(fewer, aux)
    assert count == 9
    for frame, number in zip(frames, (n for n in range(12) if n not in (0, 5, 11)), strict=True):
        np.testing.assert_array_equal(frame.aux, cv2.imread(str(aux / f"{number:04d}.png"))[..., ::-1])
    for policy in ("zero", "copy", "last"):
        done = mst(*command, "--aux", holey, "--missing", policy)
        assert done.returncode == 0, done.stderr
        assert "paired by the numbers in their names: frame(s) 5 lack theirs" in done.stderr
        stored = json.loads((tmp_path / "o" / "run.json").read_text())
        assert (stored["missing"], stored["frames without second modality"]) == (policy, [5])


def test_track_reads_videos(clip: Path, tmp_path: Path) -> None:
    rgb, aux = folders(clip)
    for kind, folder in (("rgb", rgb), ("aux", aux)):
        writer = cv2.VideoWriter(str(tmp_path / f"{kind}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20, (96, 96))
        for path in sorted(folder.iterdir()):
            writer.write(cv2.imread(str(path)))
        writer.release()
    videos = ["--rgb", tmp_path / "rgb.avi", "--aux", tmp_path / "aux.avi"]
    done = mst("track", clip / "small.safetensors", *videos, "--box", "38,40,16,14", "--out", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    track = read_track(tmp_path / "o", "track")
    assert track is not None
    assert len(track.boxes) == moving_squares.FRAMES
    (tmp_path / "aux.avi").write_bytes(b"no video")
    assert_refused(mst("track", clip / "small.safetensors", *videos, "--box", "38,40,16,14"), "aux.avi cannot be opened")


def test_track_reads_a_recording(clip: Path, tmp_path: Path, shared: Path) -> None:
    """Frames and events of a real DAVIS346."""
    recording = shared / "oracle/aedat4/davis346_test_data.aedat4"
    command = ["track", clip / "small.safetensors", "--box", "150,100,60,50", "--out", tmp_path / "o", "--rgb"]
    done = mst(*command, recording, "--events", "exposure")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("59 frames")
    assert json.loads((tmp_path / "o" / "run.json").read_text())["events"] == "exposure"
    assert_refused(mst(*command, recording, "--aux", recording), "leave out --aux")
    assert_refused(mst(*command, shared / "oracle/aedat4/tonic_sample.aedat4"), "holds no camera frames")


def test_bad_clips_are_refused(clip: Path, tmp_path: Path) -> None:
    rgb, aux = folders(clip)

    def track(rgb: Path, aux: Path, box: str) -> subprocess.CompletedProcess[str]:
        return mst("track", clip / "small.safetensors", "--rgb", rgb, "--aux", aux, "--box", box, "--out", tmp_path / "o")

    assert_refused(track(tmp_path / "nowhere", aux, "1,2,3,4"), "no folder", "nowhere")
    (tmp_path / "empty").mkdir()
    assert_refused(track(tmp_path / "empty", aux, "1,2,3,4"), "holds no images")
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    (fewer / "0.png").write_bytes((aux / "0000.png").read_bytes())
    assert_refused(track(rgb, fewer, "1,2,3,4"), "12 frames", "1")
    assert_refused(track(rgb, aux, "1,2,3"), "x,y,w,h")
    assert_refused(track(rgb, aux, "10,10,0,5"), "no size")
    assert_refused(track(rgb, aux, "500,500,20,20"), "outside the image", "96 x 96")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for i, path in enumerate(sorted(aux.iterdir())):
        (damaged / path.name).write_bytes(path.read_bytes()[: 200 if i == 3 else None])
    assert_refused(track(rgb, damaged, "38,40,16,14"), "0003.png", "truncated")


def test_unknown_names_are_refused() -> None:
    assert_refused(mst("list", "modles"), "Did you mean 'models'")
    assert_refused(mst("train", "quickstart", "train.bacth=2"), "Did you mean 'batch'")
    assert_refused(mst("train", "quickstart", "model.name=mst-tony", "model.weights=null"), "Did you mean 'mst-tiny'")
    assert_refused(mst("train", "quickstart", "data.train.0.name=sinthetic"), "Did you mean 'synthetic'")
    assert_refused(mst("train", "quickstart", "tuning.name=mts"), "Did you mean 'mst'")
    assert_refused(mst("train", "quikstart"), "Did you mean 'quickstart'")
    assert_refused(mst("info", "nothing-here"), "nothing-here")
    assert_refused(mst("eval", "nothing-here.safetensors"), "nothing-here")


def test_a_checkpoint_of_another_model_is_refused(clip: Path, tmp_path: Path) -> None:
    wrong = mst("train", "quickstart", f"model.weights={clip / 'small.safetensors'}", f"run.out={tmp_path}")
    assert_refused(wrong, "small.safetensors")


def test_debug_shows_the_traceback() -> None:
    done = mst("list", "modles", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_eval_is_resumable_and_refuses_other_results(clip: Path, tmp_path: Path) -> None:
    from mstrack.errors import UserError
    from mstrack.evaluation import evaluate

    options = {"on": "moving_squares:load", "root": clip, "out": tmp_path / "r", "modality": "thermal"}
    first = evaluate(clip / "small.safetensors", **options)
    assert first.fps is not None
    assert len(first.scores) == 3
    (tmp_path / "r" / "square1.txt").unlink()
    stamp = (tmp_path / "r" / "square0.txt").stat().st_mtime_ns
    again = evaluate(clip / "small.safetensors", **options)
    assert (tmp_path / "r" / "square0.txt").stat().st_mtime_ns == stamp
    assert dict(again.summary) == pytest.approx(dict(first.summary), abs=1e-4)
    parallel = evaluate(clip / "small.safetensors", **{**options, "out": tmp_path / "p"}, workers=2)
    assert dict(parallel.summary) == pytest.approx(dict(first.summary), abs=0.02)
    other = create_model("mst-tiny", width=32, depth=2, heads=2, cross_layers=(1,))
    with pytest.raises(UserError, match="weights"):
        evaluate(other, **options)


def test_different_frame_counts_are_named(clip: Path) -> None:
    from mstrack.errors import UserError

    sequence = moving_squares.load(clip, "test", sequences=1)[0]
    with pytest.raises(UserError, match=r"'square0'.*12 rgb frames.*11 thermal frames"):
        dataclasses.replace(sequence, aux=sequence.aux[:-1])


def test_a_checkpoint_of_a_network_of_ones_own_is_used_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "my_network.py").write_text(
        "from mstrack.models.mst import mst_tiny\n\n\ndef mine(**given):\n    return mst_tiny(width=32, depth=2, **given)\n"
    )
    made = create_model("mst-tiny", width=32, depth=2, heads=2, cross_layers=(1,))
    made.name, made.arguments = "my_network:mine", {"heads": 2, "cross_layers": (1,)}
    checkpoint.save(tmp_path / "mine.safetensors", made, {})
    moving_squares.load(tmp_path / "squares", "test", sequences=1)
    clip, own = tmp_path / "squares/test/square0", ("--model", "my_network:mine")
    assert_refused(mst("info", "mine.safetensors", cwd=tmp_path), "outside the catalogue", "--model my_network:mine")
    jobs = [
        ("info", "mine.safetensors"),
        (
            "track",
            "mine.safetensors",
            "--rgb",
            clip / "rgb",
            "--aux",
            clip / "thermal",
            "--box",
            "30,30,16,14",
            "--out",
            "track",
        ),
        ("export", "mine.safetensors", "mine.onnx"),
        ("bench", "mine.safetensors", "--backend", "eager", "--precision", "fp32", "--batch", 1, "--seconds", 0.01),
    ]
    for job in jobs:
        done = mst(*job, *own, cwd=tmp_path)
        assert done.returncode == 0, (job, done.stderr)
    data = ("--on", "moving_squares:load", "--root", tmp_path / "squares", "--argument", "sequences=1", "--out", "results")
    done = mst("eval", "mine.safetensors", *data, *own, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_track(tmp_path / "results", "square0") is not None
    tracker = ("--tracker", "template_tracker:TemplateTracker")
    assert_refused(mst("eval", *tracker, *data, *own, cwd=tmp_path), "--model are for checkpoints")
