"""The embedded benchmark: same files from the same seed, true boxes, modalities that help and fail each in its own way."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from mstrack.boxes import centres
from mstrack.data import synthetic
from mstrack.data.synthetic import SPLITS, TREE, generate, load, recording
from mstrack.data.synthetic.looks import COLOUR_CONDITIONS, LOOKS, SIDE
from mstrack.data.synthetic.scene import Moment, Scene
from mstrack.data.synthetic.sensors import ColourCamera, DepthCamera, EventCamera, ThermalCamera
from mstrack.errors import UserError

SMALL = {"train": (3, 8), "test": (2, 8)}


def digest(folder: Path) -> str:
    """One number for the names and contents of all visible files."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            total.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("benchmark"), 3, {**SMALL, "pretrain": (2, 6)}, workers=1)


# ---- files


def test_files_do_not_depend_on_the_number_of_processes(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "FRAMES_PER_WORKER", 1)
    again = generate(tmp_path / "again", 3, SMALL, workers=3)
    for split in SMALL:
        assert digest(again / split) == digest(small / split)


def test_another_seed_and_another_index_give_other_files(small: Path, tmp_path: Path) -> None:
    other = generate(tmp_path, 4, SMALL, workers=1)
    folders = [root / split / f"{split}_{i:04d}" for root in (small, other) for split in SMALL for i in range(2)]
    assert len({digest(folder / "rgb") for folder in folders}) == len(folders)


def test_a_longer_split_begins_with_the_shorter_one(small: Path, tmp_path: Path) -> None:
    more = generate(tmp_path, 3, {"test": (3, 8)}, workers=1)
    for name in ("test_0000", "test_0001"):
        assert digest(more / "test" / name) == digest(small / "test" / name)


def test_the_tree_describes_every_file(small: Path) -> None:
    patterns = {}
    for pattern in TREE:
        expression = re.escape(pattern).replace("<split>", r"\w+").replace("<sequence>", r"\w+_\d{4}")
        patterns[pattern] = re.compile(expression.replace("%06d", r"\d{6}"))
    met = set()
    for path in small.rglob("*"):
        name = str(path.relative_to(small))
        if path.is_file() and name != ".lock":
            found = [pattern for pattern, expression in patterns.items() if expression.fullmatch(name)]
            assert len(found) == 1, name
            met.add(found[0])
    assert met == set(TREE)


def test_files_hold_what_real_ones_do(small: Path) -> None:
    folder = small / "train/train_0001"
    depth = cv2.imread(str(folder / "depth/000003.png"), cv2.IMREAD_UNCHANGED)
    assert (depth.dtype, depth.shape) == (np.uint16, (SIDE, SIDE))
    assert 800 < np.median(depth[depth > 0]) < 8000
    thermal = cv2.imread(str(folder / "thermal/000003.jpg"), cv2.IMREAD_UNCHANGED)
    assert (thermal.dtype, thermal.shape) == (np.uint8, (SIDE, SIDE))
    event = cv2.imread(str(folder / "event/000003.png"), cv2.IMREAD_UNCHANGED)
    assert {tuple(colour) for colour in event.reshape(-1, 3).tolist()} == {(255, 255, 255), (30, 30, 220), (200, 30, 30)}


@pytest.mark.parametrize("modality", ["rgb", "event", "depth", "thermal"])
def test_what_was_written_is_loaded(small: Path, modality: str) -> None:
    sequences = load(small, "train", modality)
    assert [s.name for s in sequences] == ["train_0000", "train_0001", "train_0002"]
    for sequence in sequences:
        assert len(sequence) == 8
        assert sequence.boxes.shape == (8, 4)
        assert sequence.valid[0]
        frame = sequence.frame(7)
        assert frame.rgb.shape == (SIDE, SIDE, 3)
        assert (frame.aux is None) == (modality == "rgb")
        assert frame.aux is None or frame.aux.shape == (SIDE, SIDE, 3)
    assert sequences[0].attributes[:1] == ("low_light",)
    lines = (small / "train/train_0000/groundtruth.txt").read_text().splitlines()
    assert lines[0] == ",".join(f"{number:.2f}" for number in sequences[0].boxes[0])


def test_attributes_name_only_failures_of_the_own_modality() -> None:
    given = ("glare", "thermal_crossover", "event_silence", "depth_holes", "look_alike")
    assert synthetic.relevant(given, "depth") == ("glare", "depth_holes", "look_alike")
    assert synthetic.relevant(given, "rgb") == ("glare", "look_alike")


def test_pretraining_data_are_colour_only(small: Path) -> None:
    assert [s.modality for s in load(small, "pretrain")] == ["rgb", "rgb"]
    assert not (small / "pretrain/pretrain_0000/thermal").exists()
    with pytest.raises(UserError, match=r"'pretrain' has no depth frames.*'rgb'"):
        load(small, "pretrain", "depth")


FINGERPRINTS = {
    ("pretrain", 0): ([80.36, 31.00, 35.32, 20.18], [128.1]),
    ("train", 1): ([69.55, 38.84, 19.00, 46.95], [3655.2, 244.9, 127.8, 83.6]),
    ("val", 2): ([62.70, 77.37, 12.78, 8.98], [1729.8, 225.0, 112.3, 87.6]),
    ("test", 3): ([39.27, 43.64, 13.29, 20.41], [3628.3, 252.5, 145.1, 55.9]),
}
"""Of frame 19 at seed 0: the box, and the mean levels of depth, event, rgb, thermal."""


@pytest.mark.parametrize("split", ["pretrain", "train", "val", "test"])
def test_this_version_is_the_one_that_weights_and_rates_were_made_with(split: str, tmp_path: Path) -> None:
    """Where this fails on purpose, raise `synthetic.VERSION`, and make weights, sweeps and these numbers again."""
    (index, (box, levels)) = next((i, found) for (name, i), found in FINGERPRINTS.items() if name == split)
    recording.record(tmp_path / "sequence", 0, split, index, 20)
    boxes = (tmp_path / "sequence/groundtruth.txt").read_text().split()
    np.testing.assert_allclose([float(number) for number in boxes[19].split(",")], box, atol=0.05)
    files = sorted((tmp_path / "sequence").glob("*/000019.*"))
    means = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED).mean() for path in files]
    np.testing.assert_allclose(means, levels, rtol=2e-3, atol=0.3)
    assert synthetic.VERSION == 1


# ---- when and where it is made


def test_the_cache_folder_is_named_by_seed_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MST_CACHE", str(tmp_path))
    assert load(None, "train", sequences=1, frames=2)[0].rgb[0].exists()
    first, again = (load(None, "train", "event", seed=5, sequences=1, frames=2) for _ in range(2))
    assert first[0].rgb == again[0].rgb
    version = synthetic.VERSION
    expected = [f"synthetic-v{version}-seed0-train1x2", f"synthetic-v{version}-seed5-train1x2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    assert synthetic.cache_folder(0, {"test": SPLITS["test"]}) == tmp_path / f"synthetic-v{version}-seed0"
    monkeypatch.delenv("MST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert synthetic.cache_folder(1, {}) == tmp_path / f"xdg/mstrack/synthetic-v{version}-seed1"


def test_progress_counts_every_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "FRAMES_PER_WORKER", 1)
    calls: list[tuple[int, int]] = []
    generate(tmp_path, 0, {"val": (3, 2), "train": (2, 2)}, 2, lambda *call: calls.append(call))
    assert calls == [(done, 10) for done in (2, 4, 6, 8, 10)]
    generate(tmp_path, 0, {"val": (3, 2)}, 2, lambda *call: calls.append(call))
    assert len(calls) == 5, "nothing is made twice"


GENERATE = (
    "import sys; from mstrack.data.synthetic import generate; generate(sys.argv[1], 3, {'test': (8, 40)}, int(sys.argv[2]))"
)


def start(folder: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", GENERATE, str(folder), str(workers)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1], start_new_session=True, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once_and_a_killed_one_leave_the_same_files(tmp_path: Path) -> None:
    killed, shared = tmp_path / "killed", tmp_path / "shared"
    process = start(killed, 2)
    deadline = time.monotonic() + 60
    while not list(killed.glob(".test-*/*/rgb/000005.jpg")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert process.stderr is not None
    process.stderr.close()
    assert not (killed / "benchmark.json").exists()
    assert list(killed.glob(".test-*"))
    both = [start(shared, 1), start(shared, 1)]
    for process in both:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    sequences = load(killed, "test", seed=3, sequences=8, frames=40)
    assert len(sequences) == 8
    assert not list(killed.glob(".test-*")), "what the killed process left is gone"
    assert digest(killed) == digest(shared)


def test_a_split_that_the_description_does_not_name_is_made_again(small: Path, tmp_path: Path) -> None:
    generate(tmp_path, 3, {"test": SMALL["test"]}, 1)
    (tmp_path / "test/test_0001/groundtruth.txt").unlink()
    (tmp_path / "benchmark.json").unlink()
    assert len(load(tmp_path, "test", seed=3, sequences=2, frames=8)) == 2
    assert digest(tmp_path / "test") == digest(small / "test")


def test_a_script_without_main_guard_is_run_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"with open({str(tmp_path / 'runs')!r}, 'a') as log: log.write('x')\n"
        "from mstrack.data.synthetic import load\n"
        f"load({str(tmp_path / 'data')!r}, 'val', sequences=2, frames=160, workers=2)\n"
    )
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "runs").read_text() == "x"


def test_what_is_asked_for_must_be_what_is_there(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'tst'\. Did you mean 'test'\?"):
        load(small, "tst")
    with pytest.raises(UserError, match=r"'dept'\. Did you mean 'depth'\?"):
        load(small, "test", "dept")
    with pytest.raises(UserError, match=r"seed 3, asked for were version \d+ and seed 4"):
        load(small, "test", seed=4)
    with pytest.raises(UserError, match="'test' has 2 sequences of 8 frames, asked for were 5 of 8"):
        load(small, "test", sequences=5)
    with pytest.raises(UserError, match="both must be at least 1"):
        generate(tmp_path / "none", splits={"test": (0, 8)})


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(UserError, match=r"not the embedded benchmark.*holiday\.jpg"):
        load(tmp_path, "test")
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    with pytest.raises(UserError, match="cannot be written"):
        load(tmp_path / "holiday.jpg", "test")


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}', '{"version": 1, "seed": 0, "splits": {"test": 3}}'])
def test_a_damaged_description_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "benchmark.json").write_text(text)
    with pytest.raises(UserError, match=r"benchmark\.json is damaged"):
        load(tmp_path, "test")


def test_the_description_says_what_is_there(small: Path) -> None:
    found = json.loads((small / "benchmark.json").read_text())
    assert found["seed"] == 3
    assert found["splits"]["train"] == {"sequences": 3, "frames": 8}


# ---- geometry


@cache
def scene(split: str, index: int, *attributes: str, frames: int = 40) -> Scene:
    return Scene(np.random.default_rng(index), LOOKS[split], attributes, frames)


def extent(mask: np.ndarray) -> np.ndarray:
    """x, y, w, h of what is more than half opaque."""
    x, y, w, h = cv2.boundingRect((mask > 0.5).astype(np.uint8))
    return np.array([x, y, w, h], float)


@pytest.mark.parametrize("split", ["pretrain", "train", "val", "test"])
def test_boxes_are_those_of_the_drawn_target(split: str) -> None:
    errors = []
    for index in range(12):
        for t in (0, 13, 39):
            moment = scene(split, index, "scale_change").moment(t)
            drawn = extent(moment.target)
            errors.append(np.concatenate([drawn[:2] - moment.box[:2], drawn[:2] + drawn[2:] - moment.box[:2] - moment.box[2:]]))
    errors = np.array(errors)
    assert np.abs(errors).max() < 1.3
    assert np.abs(errors).mean() < 0.35
    assert np.abs(errors.mean(0)).max() < 0.2, "no systematic shift"


def test_a_target_is_hidden_flagged_and_seen_again() -> None:
    gone = 0
    for index in range(8):
        moments = [scene("train", index, "occlusion").moment(t) for t in range(40)]
        present = np.array([m.present for m in moments])
        share = np.array([m.visible.sum() / m.target.sum() for m in moments])
        assert present[0]
        assert present[-1]
        np.testing.assert_array_equal(present, share >= 0.1)
        gone += bool(1 <= (~present).sum() <= 14)
    assert gone >= 7


def test_without_an_occluder_the_target_is_rarely_gone() -> None:
    present = [scene("test", index).moment(t).present for index in range(8) for t in range(0, 40, 3)]
    assert np.mean(present) > 0.97


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_target_stays_in_the_search_region_of_the_last_frame(split: str) -> None:
    inside = []
    for index in range(20):
        world = scene(split, index, "fast_motion", "scale_change", frames=60)
        corners = np.array([world.target.outline(t) for t in range(1, 61)])
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        reach = 2 * np.sqrt(boxes[:-1, 2:].prod(1))
        step = np.abs(np.diff(centres(boxes), axis=0)) + boxes[1:, 2:] / 2
        inside.extend((step < reach[:, None]).all(1))
        sides = np.sqrt(boxes[:, 2:].prod(1))
        assert sides.min() > 8
        assert sides.max() < 50
    assert np.mean(inside) > 0.995


# ---- information


def separate(image: np.ndarray, moment: Moment) -> float:
    """How far the target's median is from that of the ring around it, in robust deviations of both; best channel."""
    target = moment.visible > 0.5
    ring = (cv2.dilate(moment.target, np.ones((13, 13))) > 0.01) & (moment.target < 0.01)
    if target.sum() < 20 or ring.sum() < 20:
        return np.nan
    channels = image.reshape(SIDE, SIDE, -1).astype(np.float64)
    inside, outside = channels[target], channels[ring]
    spread = [np.median(np.abs(x - np.median(x, 0)), 0) for x in (inside, outside)]
    return float(np.max(np.abs(np.median(inside, 0) - np.median(outside, 0)) / (spread[0] + spread[1] + 2)))


def fire(image: np.ndarray, moment: Moment) -> float:
    """Share of the target's box in which events fired."""
    x, y, w, h = np.rint(moment.box).astype(int)
    return float((image[y : y + h, x : x + w] != 255).any(-1).mean())


@cache
def measure(split: str, *attributes: str) -> dict[str, float]:
    """Median over 16 scenes of what each camera's images say of the target."""
    found: dict[str, list[float]] = {name: [] for name in ("rgb", "thermal", "depth", "event", "sharpness", "missing")}
    for index in range(16):
        world = scene(split, index, *(a for a in attributes if a in ("camouflage", "event_silence", "thermal_crossover")))
        cameras = [np.random.default_rng((index, k)) for k in range(4)]
        look = LOOKS[split]
        colour, thermal = ColourCamera(cameras[0], look, attributes), ThermalCamera(cameras[1], look, attributes)
        depth, event = DepthCamera(cameras[2], look, attributes), EventCamera(cameras[3], look, attributes)
        for t in range(10, 34):
            moment = world.moment(t)
            events = event.capture(moment)
            if t % 8:
                continue
            rgb, millimetres = colour.capture(moment, t), depth.capture(moment, t)
            found["rgb"].append(separate(rgb, moment))
            found["sharpness"].append(cv2.Laplacian(cv2.GaussianBlur(rgb, (0, 0), 1), cv2.CV_32F).std())
            found["thermal"].append(separate(thermal.capture(moment, t), moment))
            found["depth"].append(separate(millimetres / 20, moment))
            if moment.present:
                found["missing"].append(float((millimetres[moment.visible > 0.5] == 0).mean()))
            found["event"].append(fire(events, moment))
    return {name: float(np.nanmedian(values)) for name, values in found.items()}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_colour_fails_in_hard_frames_and_the_others_do_not(split: str) -> None:
    clear = measure(split)
    for condition, left in {"low_light": 0.8, "glare": 0.8, "camouflage": 0.6}.items():
        hard = measure(split, condition)
        assert hard["rgb"] < left * clear["rgb"]
        for modality in ("thermal", "depth"):
            assert hard[modality] > 0.9 * clear[modality], (condition, modality)
        assert hard["event"] > 1.5 * measure(split, "event_silence")["event"]
        assert hard["thermal"] > 1.2 * hard["rgb"]
        assert hard["depth"] > 1.2 * hard["rgb"]
    blurred = measure(split, "blur")
    assert blurred["sharpness"] < 0.6 * clear["sharpness"]


def test_glare_hides_the_surface_of_the_target_from_colour_only() -> None:
    """Inside the target the picture of a spoiled frame no longer follows that of a clear one."""
    likeness = {}
    for attributes in ((), ("glare",)):
        values = []
        for index in range(12):
            world = scene("train", index)
            camera = ColourCamera(np.random.default_rng(index), LOOKS["train"], attributes)
            for t in (5, 20, 35):
                moment = world.moment(t)
                target = moment.visible > 0.5
                if target.sum() > 30:
                    seen = camera.capture(moment, t).astype(float)[target].ravel()
                    values.append(np.corrcoef(seen, moment.colour[target].ravel())[0, 1])
        likeness[attributes] = np.median(values)
    assert likeness[()] > 0.95
    assert 1 - likeness["glare",] > 3 * (1 - likeness[()])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_each_modality_fails_in_its_own_way(split: str) -> None:
    normal = measure(split)
    crossed, silent, holes = (measure(split, name) for name in ("thermal_crossover", "event_silence", "depth_holes"))
    assert crossed["thermal"] < 0.35 * normal["thermal"]
    assert crossed["depth"] == pytest.approx(normal["depth"], rel=0.1)
    assert silent["event"] < 0.35 * normal["event"]
    assert silent["thermal"] > 0.6 * normal["thermal"]
    assert holes["missing"] > 0.6
    assert normal["missing"] < 0.2
    assert holes["thermal"] == pytest.approx(normal["thermal"])


def test_every_condition_has_its_share_of_a_split() -> None:
    drawn = [recording.draw_attributes(np.random.default_rng(i), "test", i, 60) for i in range(60)]
    for condition in COLOUR_CONDITIONS:
        assert sum(a[: len(condition)] == condition for a in drawn) >= 10
    for name in ("occlusion", "fast_motion", "scale_change", "thermal_crossover", "event_silence", "depth_holes"):
        assert 6 <= sum(name in a for a in drawn) <= 30


def test_splits_differ_in_their_statistics() -> None:
    """Histograms of hue differ more between splits than between the halves of one."""

    def histogram(split: str, indices: range) -> np.ndarray:
        hues = [cv2.cvtColor(scene(split, i).moment(0).colour, cv2.COLOR_RGB2HSV)[..., 0].ravel() for i in indices]
        return np.histogram(np.concatenate(hues), 18, (0, 360))[0] / (len(hues) * SIDE**2)

    halves = {s: [histogram(s, range(16)), histogram(s, range(16, 32))] for s in ("train", "val", "test")}
    within = max(np.abs(a - b).sum() for a, b in halves.values())
    whole = {s: np.mean(h, axis=0) for s, h in halves.items()}
    assert np.abs(whole["train"] - whole["test"]).sum() > 1.3 * within
    assert np.abs(whole["train"] - whole["val"]).sum() > 0.6 * within
    assert len({(look.hue, look.textures, look.shapes, look.exposure, look.heat_noise) for look in LOOKS.values()}) == 4
