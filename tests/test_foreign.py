"""Trackers that are not ours: one of the tests' own, `template_tracker.py`, as a class and over TraX, and how it can fail."""

import inspect
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import layouts
import moving_squares
import numpy as np
import pytest
from commands import mst
from template_tracker import TemplateTracker
from typer.main import get_command

from mstrack import checkpoint, create_model
from mstrack.cli import app
from mstrack.data import Frame, Sequence, load_sequences
from mstrack.errors import DataWarning, UserError
from mstrack.evaluation import Evaluation, evaluate
from mstrack.foreign import choose_tracker, name_tracker, open_tracker, process
from mstrack.foreign.classes import read_answer
from mstrack.foreign.feeding import Frames, Pictures
from mstrack.foreign.pytracking import FEEDS, Pytracking
from mstrack.foreign.session import read_hello
from mstrack.results import read_track
from mstrack.trax import parse_message

pytestmark = pytest.mark.filterwarnings("ignore::mstrack.errors.DataWarning")
HERE = Path(__file__).parent
CLASS = "template_tracker:TemplateTracker"


def trax(*words: object) -> str:
    return "trax:" + shlex.join([sys.executable, str(HERE / "template_tracker.py"), *map(str, words)])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    moving_squares.load(folder, "test")
    return folder


def follow(spec: str, root: Path, out: Path, timeout: float = 20, arguments: dict | None = None, **options: Any) -> Evaluation:
    given = {"on": "moving_squares:load", "root": root, "modality": "thermal"} | options
    return evaluate(open_tracker(spec, arguments, timeout), out=out, **given)


def by_hand(sequence: Sequence, use: str = "rgb") -> tuple[np.ndarray, list[float]]:
    """What the tracker says without us in between."""
    tracker = TemplateTracker()
    tracker.start(tracker_grey(sequence, 0, use), sequence.boxes[0])
    found = [tracker.find(tracker_grey(sequence, number, use)) for number in range(1, len(sequence))]
    return np.array([sequence.boxes[0], *(box for box, _ in found)]), [1.0, *(score for _, score in found)]


def tracker_grey(sequence: Sequence, number: int, use: str) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str((sequence.rgb if use == "rgb" else sequence.aux)[number])), cv2.COLOR_BGR2GRAY)


# ---- it works


@pytest.mark.parametrize(
    ("spec", "use"),
    [
        (CLASS, "rgb"),
        (trax(), "rgb"),
        (trax("", "where=socket"), "rgb"),
        (trax("", "version=1"), "rgb"),
        (trax("", "version=4", "region=polygon"), "rgb"),
        (trax("", "image=memory", "channels=color;ir", "look=1"), "aux"),
        (trax("", "image=buffer", "channels=color;ir", "look=1"), "aux"),
        (trax("", "channels=color;ir", "look=1", "where=socket", "version=4"), "aux"),
        (trax("polygon"), "rgb"),
        (trax("one sequence"), "rgb"),
        (trax("one sequence, no word"), "rgb"),
    ],
)
def test_a_tracker_says_through_us_what_it_says_by_itself(root: Path, tmp_path: Path, spec: str, use: str) -> None:
    result = follow(spec, root, tmp_path)
    assert len(result.sequences) == 3 and result.summary["SR"] > 85
    assert result.fps is not None and result.network_fps is None
    for sequence in result.sequences:
        boxes, scores = by_hand(sequence, use)
        track = read_track(tmp_path, sequence.name)
        np.testing.assert_allclose(track.boxes, boxes, atol=1e-3)
        np.testing.assert_allclose(track.confidence, scores, atol=1e-5)


def test_one_process_serves_all_sequences_unless_it_wants_another(root: Path, tmp_path: Path) -> None:
    started = {}
    for fault in ("", "one sequence"):
        log = tmp_path / f"starts of {fault}"
        script = f"echo start >> {shlex.quote(str(log))}; exec {trax(fault).removeprefix('trax:')}"
        follow(f"trax:sh -c {shlex.quote(script)}", root, tmp_path / f"results of {fault}")
        started[fault] = len(log.read_text().split())
    assert started == {"": 1, "one sequence": 3}


def test_workers_have_a_tracker_each(root: Path, tmp_path: Path) -> None:
    shared = follow(trax(), root, tmp_path, workers=2)
    for sequence in shared.sequences:
        np.testing.assert_allclose(shared.tracks[sequence.name].boxes, by_hand(sequence)[0], atol=1e-3)
    assert shared.fps is not None


def test_our_own_tracker_over_trax_is_our_own_tracker(tmp_path: Path) -> None:
    root = tmp_path / "DepthTrack"
    layouts.miniature("depthtrack", "as released", root, frames=5)
    small = create_model("mst-tiny", width=32, depth=2, heads=2, cross_layers=(1,))
    checkpoint.save(tmp_path / "small.safetensors", small, {"config": {"data": {"modality": "depth"}}})
    command = [sys.executable, "-m", "mstrack", "vot", "run", str(tmp_path / "small.safetensors"), "--device", "cpu"]
    options = {"on": "depthtrack", "root": root}
    ours = evaluate(tmp_path / "small.safetensors", out=tmp_path / "ours", **options)
    over = evaluate(open_tracker(f"trax:{shlex.join(command)}", timeout=60), out=tmp_path / "over", **options)
    for name, track in ours.tracks.items():
        np.testing.assert_allclose(over.tracks[name].boxes, track.boxes, atol=2e-3)
        np.testing.assert_allclose(over.tracks[name].confidence, track.confidence, atol=1e-5)


@pytest.mark.parametrize(
    ("dataset", "variant", "encoding", "channel"),
    [("fe108", "stacks", None, "ir"), ("fe108", "stacks", None, "event"), ("depthtrack", "as released", "jet", "depth")],
)
def test_frames_that_are_no_plain_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, variant: str, encoding: str | None, channel: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    layouts.miniature(dataset, variant, tmp_path / "data", frames=6)
    options = {"on": dataset, "modality": None, "encoding": encoding}
    seen = follow(CLASS, tmp_path / "data", tmp_path / "class", arguments={"use": "aux"}, **options)
    spec = trax("", f"channels=color;{channel}", "look=1")
    told = follow(spec, tmp_path / "data", tmp_path / "trax", **options)
    for name, track in seen.tracks.items():
        np.testing.assert_array_equal(told.tracks[name].boxes, track.boxes)
        np.testing.assert_allclose(told.tracks[name].confidence, track.confidence, atol=1e-6)
    assert not list((tmp_path / "tmp").iterdir())


def test_plain_files_are_handed_over_as_they_are(tmp_path: Path) -> None:
    layouts.miniature("depthtrack", "as released", tmp_path / "data")
    sequence = load_sequences("depthtrack", "test", tmp_path / "data")[0]
    told = Pictures(sequence, True, "path", "error", tmp_path).of(1)
    assert told == [f"file://{sequence.rgb[1]}", f"file://{sequence.aux[1]}"]
    assert Pictures(sequence, False, "path", "error", tmp_path).of(1) == told[:1]
    grey = Pictures(sequence, True, "memory", "error", tmp_path).of(1)[1]
    assert grey.startswith("image:64;48;gray16;"), "millimetres"


def test_properties_go_with_initialize(root: Path, tmp_path: Path) -> None:
    result = follow(trax("", "expect=7"), root, tmp_path, arguments={"expect": 7})
    assert json.loads((result.folder / "run.json").read_text())["tracker arguments"] == {"expect": "7"}


def test_channels(tmp_path: Path) -> None:
    layouts.miniature("depthtrack", "as released", tmp_path / "data")
    root, options = tmp_path / "data", {"on": "depthtrack"}
    with pytest.warns(DataWarning, match="takes colour alone; it is not sent the depth frames"):
        seen = follow(trax(), root, tmp_path / "a", **options | {"modality": None})
    assert json.loads((seen.folder / "run.json").read_text())["modality"] == "depth"
    with pytest.raises(UserError, match="takes the channels color, depth; sequences of rgb frames have color"):
        follow(trax("", "channels=color;depth"), root, tmp_path / "b", **options | {"modality": "rgb"})
    with pytest.raises(UserError, match="takes the channels color, ir; sequences of depth frames have color and depth"):
        follow(trax("", "channels=color;ir"), root, tmp_path / "c", **options | {"modality": None})
    with pytest.raises(UserError, match=r"TemplateTracker.init: error: .*template_tracker.py, line"):
        follow(CLASS, root, tmp_path / "d", arguments={"use": "aux"}, **options | {"modality": "rgb"})


def test_a_tracker_may_see_no_target(root: Path, tmp_path: Path) -> None:
    track = follow(trax("absent"), root, tmp_path).tracks["square0"]
    assert np.isnan(track.boxes[3]).all() and not np.isnan(np.delete(track.boxes, 3, axis=0)).any()
    assert (tmp_path / "square0.txt").read_text().splitlines()[3] == "nan,nan,nan,nan"


# ---- frames without their second modality


def test_a_missing_modality_is_filled(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "data")
    sequence = moving_squares.load(tmp_path / "data", "test")[0]
    for number in (0, 4):
        sequence.aux[number].unlink()
    with pytest.raises(UserError, match=r"'square0', frame 0: thermal frame .* does not exist.*--missing"):
        list(Frames(sequence, "error"))
    with pytest.raises(UserError, match=r"'square0', frame 0: thermal frame .* does not exist.*--missing"):
        Pictures(sequence, True, "path", "error", tmp_path).of(0)
    expected = {"zero": {0: 0, 4: 0}, "copy": {0: "rgb", 4: "rgb"}, "last": {0: 0, 4: 3}}
    for policy, filled in expected.items():
        frames, told = Frames(sequence, policy), Pictures(sequence, True, "path", policy, tmp_path)
        for number, frame in enumerate(frames):
            colour, second = (cv2.imread(text.removeprefix("file://")) for text in told.of(number))
            np.testing.assert_array_equal(colour[..., ::-1], frame.rgb)
            np.testing.assert_array_equal(second[..., ::-1], frame.aux)
            if filled.get(number) == "rgb":
                np.testing.assert_array_equal(frame.aux, frame.rgb)
            elif filled.get(number) == 0:
                assert not frame.aux.any() and frame.lacking is not None
            elif number in filled:
                np.testing.assert_array_equal(frame.aux, sequence.frame(filled[number]).aux)
        told.forget()
        assert frames.lacking == told.lacking == [0, 4]
    assert not list(tmp_path.glob("*.png"))


def test_frames_that_lacked_their_modality_are_counted(tmp_path: Path) -> None:
    layouts.miniature("lasher", "as released", tmp_path / "data")
    root, options = tmp_path / "data", {"on": "lasher", "modality": None}
    sequence = load_sequences("lasher", "test", tmp_path / "data")[0]
    sequence.aux[2].unlink()
    for place, spec in enumerate((CLASS, trax("", "channels=color;ir"))):
        with pytest.raises(UserError, match=rf"'{sequence.name}', frame 2: there is no thermal frame.*--missing"):
            follow(spec, root, tmp_path / f"a{place}", **options)
        result = follow(spec, root, tmp_path / f"b{place}", missing="last", **options)
        assert result.tracks[sequence.name].lacking == (2,)
        assert json.loads((result.folder / "scores.json").read_text())["frames without second modality"] == 1


# ---- it fails


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("dies", r"it ended after 'frame', exit code 7\. The last it printed:\n(.*\n)*  CUDA error: an illegal memory access"),
        ("hangs", r"it said nothing for 1\.5 s after 'frame' \(--timeout\)"),
        ("refuses", r"it quit: the image is too dark, exit code 0"),
        ("mask", r"it answered a mask \(m10,10,4,4,0,16\); boxes are scored here"),
        ("nonsense", r"it talks nonsense: TraX: a 'state' message is malformed"),
        ("dances", r"it talks nonsense: TraX: 'dance' is no message"),
        ("three numbers", r"it answered the region '1,2,3', which is no rectangle"),
        ("greets again", r"it answered 'frame' with 'hello' and 0 argument\(s\), expected 'state' and one region"),
    ],
)
def test_a_tracker_that_fails_is_told_and_what_was_finished_is_kept(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.2)
    flag = tmp_path / "flag"
    flag.touch()
    spec = trax(fault, f"while={flag}", "after=15", f"pid={tmp_path / 'pid'}")
    with pytest.raises(UserError, match=said) as error:
        follow(spec, root, tmp_path / "r", timeout=1.5)
    assert str(error.value).startswith(f"sequence 'square1', frame 4: tracker '{spec.removeprefix('trax:')}': ")
    assert "loading the weights" in str(error.value), "the end of its error output"
    assert (tmp_path / "r" / "square0.txt").is_file() and not (tmp_path / "r" / "square1.txt").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    flag.unlink()
    before = (tmp_path / "r" / "square0.txt").stat().st_mtime_ns
    again = follow(spec, root, tmp_path / "r", timeout=20)
    assert again.summary["SR"] > 85 and (tmp_path / "r" / "square0.txt").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            trax("dies at once"),
            r"it ended after being started, exit code 1\. The last it printed:\n(.*\n)*  no GPU on this machine",
        ),
        (trax("silent"), r"it said nothing for 0\.7 s after being started"),
        ("trax:no-such-command --x", r"cannot be started: No such file or directory \(no-such-command\)"),
        (trax("", "version=5"), "it speaks version 5 of TraX; versions 1 to 4 are known"),
        (trax("", "image=url"), "it takes images as url; it can be given path"),
        (trax("", "region=mask"), "it takes the target as mask; it can be given a rectangle or a polygon"),
    ],
)
def test_a_tracker_that_cannot_start_is_told(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, said: str
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.2)
    with pytest.raises(UserError, match=said):
        follow(spec, root, tmp_path, timeout=0.7 if "silent" in spec else 10)


def test_a_tracker_that_does_not_listen_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.2)
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('@@TRAX:hello', flush=True); time.sleep(60)"
    )
    started = process.TrackerProcess(shlex.join([sys.executable, "-c", deaf]), timeout=1.0)
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"it has not read a message for 1 s \(--timeout\)"):
        started.send("frame", ["x" * 10_000_000])
    started.close()
    assert time.monotonic() - begun < 10 and started._process.returncode == -9


def test_a_hello_without_words_is_that_of_version_1() -> None:
    hello = parse_message("@@TRAX:hello")
    assert hello is not None
    abilities = read_hello(hello)
    assert (abilities.version, abilities.form, abilities.polygons, abilities.channels) == (1, "path", False, ("color",))
    late = parse_message('@@TRAX:hello "trax.version=4" "trax.image=memory;buffer" "trax.channels=color, ir"')
    assert late is not None
    assert read_hello(late).form == "buffer" and read_hello(late).channels == ("color", "ir")


@pytest.fixture
def trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of trackers that cannot be used, in the current folder."""
    (tmp_path / "bad_trackers.py").write_text(
        textwrap.dedent(
            """
            class Base:
                def __init__(self, answer=None):
                    self.answer = answer
                def init(self, frame, box):
                    self.box = box
                def update(self, frame):
                    return self.answer
            class Raises(Base):
                def update(self, frame):
                    return 1 / 0
            class Lacking:
                def init(self, frame, box): ...
            class Breaks(Base):
                def __init__(self):
                    raise RuntimeError("no weights")
            class Leaves(Base):
                def init(self, frame, box):
                    raise SystemExit("bye")
            class OneAlone(Base):
                def __init__(self, at):
                    self.at = at
                def update(self, frame):
                    return self.box if list(self.box[:2]) == self.at else 1 / 0
            class Dies(Base):
                def update(self, frame):
                    import os
                    os._exit(3)
            """
        )
    )
    (tmp_path / "broken_module.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield tmp_path
    sys.modules.pop("bad_trackers", None)


@pytest.mark.parametrize(
    ("spec", "arguments", "said"),
    [
        ("bad_trackers:Base", {}, r"'square0', frame 1: bad_trackers:Base.update returned None.*Expected a box x, y, w, h"),
        ("bad_trackers:Base", {"answer": [1, 2, 3]}, r"frame 1: bad_trackers:Base.update returned \[1, 2, 3\]\. Expected"),
        ("bad_trackers:Base", {"answer": "left"}, r"returned 'left': could not convert"),
        ("bad_trackers:Base", {"answer": [1, 2, 3, float("nan")]}, r"returned \[1, 2, 3, nan\]: not finite"),
        (
            "bad_trackers:Raises",
            {},
            r"frame 1: bad_trackers:Raises.update: ZeroDivisionError: .*bad_trackers.py, line 11; --debug",
        ),
        ("bad_trackers:Lacking", {}, r"has no method update\. Expected a class with init\(frame, box\)"),
        ("bad_trackers:Breaks", {}, r"bad_trackers:Breaks cannot be made: RuntimeError: no weights"),
        ("bad_trackers:Leaves", {}, r"'square0', frame 0: bad_trackers:Leaves.init: SystemExit: bye"),
        ("bad_trackers:Base", {"radius": 3}, r"unexpected keyword argument 'radius'. It takes: answer=None"),
        ("bad_trackers:Bass", {}, r"bad_trackers has no 'Bass'\. Classes there: Base, Breaks"),
        (
            "broken_module:A",
            {},
            r"module 'broken_module' of tracker .* cannot be imported: ModuleNotFoundError: .*no_such_package",
        ),
        ("nowhere:A", {}, r"module 'nowhere' of tracker 'nowhere:A' cannot be imported"),
    ],
)
def test_a_class_that_cannot_be_used_is_told(trackers: Path, root: Path, spec: str, arguments: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        follow(spec, root, trackers / "out", arguments=arguments)


def test_what_other_workers_finish_is_kept(trackers: Path, root: Path) -> None:
    x, y = (float(value) for value in moving_squares.load(root, "test")[0].boxes[0, :2])
    with pytest.raises(UserError, match=r"'square[12]', frame 1: bad_trackers:OneAlone.update: ZeroDivisionError"):
        follow("bad_trackers:OneAlone", root, trackers / "out", workers=2, arguments={"at": [x, y]})
    assert {file.name for file in (trackers / "out").glob("square?.txt")} == {"square0.txt"}


def test_a_worker_that_dies_is_told(trackers: Path, root: Path) -> None:
    with pytest.raises(UserError, match="a worker process has died without a word"):
        follow("bad_trackers:Dies", root, trackers / "out", workers=2)


def test_answers_of_a_class() -> None:
    for answer in ([1, 2, 3, 4], (1, 2, 3, 4), np.array([[1, 2, 3, 4]]), ((1, 2, 3, 4), 1), ([1, 2, 3, 4], None)):
        box, score = read_answer(answer, "here")
        assert box.tolist() == [1, 2, 3, 4] and score == 1
    box, score = read_answer((np.array([1.5, 2, 3, 4]), np.float32(0.25)), "here")
    assert box.dtype == np.float64 and (box[0], score) == (1.5, 0.25)
    box, score = read_answer((None, 0.5), "here")
    assert np.isnan(box).all() and score == 0.5


# ---- the command line


def test_eval_takes_a_tracker(root: Path, tmp_path: Path) -> None:
    options = ["--on", "moving_squares:load", "--root", root]
    shutil.copy(HERE / "template_tracker.py", tmp_path / "mine.py")
    done = mst("eval", "--tracker", "mine:TemplateTracker", "--tracker-argument", "radius=9", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "TemplateTracker-9 on moving_squares:load" in done.stdout and "from file to box" in done.stdout
    assert "network only" not in done.stdout
    folder = tmp_path / "results" / "TemplateTracker-9-moving_squares.load"
    run = json.loads((folder / "run.json").read_text())
    assert (run["tracker"], run["tracker arguments"]) == ("mine:TemplateTracker", {"radius": 9})
    assert (run["modality"], run["missing"]) == ("thermal", "error")
    assert json.loads((folder / "scores.json").read_text())["sequences"] == 3
    page = (folder / "report.html").read_text()
    assert "mst eval --tracker mine:TemplateTracker --tracker-argument radius=9" in page
    with pytest.raises(
        UserError, match=r"another run \(tracker: mine:.* there, .*; tracker arguments: {'radius': 9} there, {} now"
    ):
        follow(CLASS, root, folder)


def test_eval_takes_one_tracker() -> None:
    for checkpoint_name, spec, arguments, said in (
        (None, None, {}, "nothing to evaluate"),
        ("mst-tiny-thermal", "a:B", {}, r"both a checkpoint \('mst-tiny-thermal'\) and --tracker 'a:B' are given"),
        ("mst-tiny-thermal", None, {"a": 1}, "--tracker-argument a is for a tracker given with --tracker"),
        (None, "my_tracker", {}, "neither trax:COMMAND"),
        (None, "my tracker:A", {}, "neither trax:COMMAND"),
        (None, "trax:", {}, "names no command"),
        (None, "trax:python 'a", {}, "cannot be split into words"),
    ):
        with pytest.raises(UserError, match=said):
            choose_tracker(checkpoint_name, spec, arguments, 300)


@pytest.mark.parametrize(
    ("spec", "arguments", "name"),
    [
        ("trax:python my_tracker.py --gpu 0", {}, "my_tracker"),
        ("trax:/opt/env/bin/python3.8 -m run.dimp", {}, "run.dimp"),
        ("trax:conda run -n st python /x/my tracker.py", {}, "tracker"),
        ("trax:./track", {"a": "b c", "path": "/x/y"}, "track-b-c"),
        ("package.module:Class", {}, "Class"),
        ("m:A", {"checkout": "checkouts/pytracking", "tracker": "tomp", "parameter": "tomp50"}, "A-tomp-tomp50"),
    ],
)
def test_names(spec: str, arguments: dict, name: str) -> None:
    assert name_tracker(spec, arguments) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/mine/model.safetensors", "mine"),
        ("runs/mine/best.safetensors", "mine-best"),
        ("runs/mine/kept/0010.safetensors", "mine-0010"),
        ("mst-tiny-thermal", "mst-tiny-thermal"),
    ],
)
def test_checkpoints_of_two_runs_have_two_names(path: str, name: str) -> None:
    assert choose_tracker(path, None, {}, 1.0) == (path, name)


def test_what_the_documentation_names_exists() -> None:
    text = (HERE.parent / "docs" / "trackers.md").read_text(encoding="utf-8")
    options = {name for parameter in get_command(app).commands["eval"].params for name in parameter.opts}
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--debug"}
    assert used and used <= options, used - options
    rows = re.findall(r"^\| (`[^|]+) \|", text.partition("## pytracking")[2].partition("\n## ")[0], flags=re.MULTILINE)
    named = {name.partition(".")[0] for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    assert named == set(inspect.signature(Pytracking).parameters)
    assert set(re.findall(r"aux=(\w+)", text)) <= set(FEEDS)


# ---- pytracking, in a checkout of the same layout and calling convention


PYTRACKING = {
    "ltr/__init__.py": "",
    "pytracking/__init__.py": "",
    "pytracking/evaluation/__init__.py": "",
    "pytracking/evaluation/environment.py": """
        import importlib
        import os
        class EnvSettings:
            def __init__(self):
                self.network_path = "nowhere/"
        def env_settings():
            try:
                return importlib.import_module("pytracking.evaluation.local").local_env_settings()
            except ImportError:
                open(os.path.join(os.path.dirname(__file__), "local.py"), "w").close()
                raise RuntimeError("YOU HAVE NOT SETUP YOUR local.py!!!")
        """,
    "pytracking/utils/__init__.py": """
        class TrackerParams:
            pass
        """,
    "pytracking/parameter/__init__.py": "",
    "pytracking/parameter/corr/__init__.py": "",
    "pytracking/parameter/corr/plain.py": """
        from pytracking.utils import TrackerParams
        from pytracking.evaluation.environment import env_settings
        def parameters(reach=None):
            params = TrackerParams()
            params.use_gpu = True
            params.reach = reach or int(open(env_settings().network_path + "net.pth").read())
            return params
        """,
    "pytracking/tracker/__init__.py": "",
    "pytracking/tracker/corr/__init__.py": """
        from pytracking.tracker.corr.corr import Corr
        def get_tracker_class():
            return Corr
        """,
    "pytracking/tracker/corr/corr.py": """
        from template_tracker import TemplateTracker
        import cv2
        class Corr:
            started = 0
            def __init__(self, params):
                self.params = params
            def initialize(self, image, info):
                assert self.visdom is None and params_of(self) == (False, False, 0, "cpu")
                Corr.started += 1
                self.inner = TemplateTracker(self.params.reach)
                assert isinstance(info["init_bbox"], list)
                self.inner.start(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), info["init_bbox"])
                self.last = None
            def track(self, image, info=None):
                assert info["previous_output"].get("target_bbox") == self.last
                self.last, score = self.inner.find(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
                self.debug_info = {"max_score": score}
                return {"target_bbox": self.last}
        def params_of(tracker):
            p = tracker.params
            return p.use_gpu, p.visualization, p.debug, p.device
        """,
}
EVENTS = {
    "image": """
        import numpy as np
        class Corr:
            def __init__(self, params):
                pass
            def initialize(self, image, events, info):
                assert events.shape == image.shape
            def track(self, image, events, info=None):
                return {"target_bbox": [-1, -1, -1, -1]}
        """,
    "parts": """
        class Corr:
            def __init__(self, params):
                pass
            def initialize(self, image, event_img, info):
                self.colours = image.max()
            def track(self, image, event_img, info=None):
                assert [part.shape for part in event_img] == [image.shape] * 3
                assert all((part[..., 0] == part[..., 2]).all() for part in event_img)
                means = [float(part.mean()) for part in event_img]
                return {"target_bbox": [*means, 1.0], "object_presence_score": 0.5}
        """,
}


def make_checkout(folder: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(textwrap.dedent(text))
    return folder


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of a checkout is imported yet, nor stays so."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] in ("pytracking", "ltr", "lib")]:
            del sys.modules[name]

    monkeypatch.setattr(sys, "path", list(sys.path))
    forget()
    yield
    forget()


ADAPTER = "mstrack.foreign.pytracking:Pytracking"


def test_a_checkout_of_pytracking(fresh: None, root: Path, tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout", PYTRACKING)
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "net.pth").write_text("12")
    given = {"checkout": str(checkout), "tracker": "corr", "parameter": "plain", "device": "cpu"}
    with pytest.raises(UserError, match=r"there is no .*local\.py, which says where the networks are: .*networks=DIR"):
        follow(ADAPTER, root, tmp_path / "r", arguments=given)
    result = follow(ADAPTER, root, tmp_path / "s", arguments={**given, "networks": str(tmp_path / "nets")})
    for sequence in result.sequences:
        boxes, scores = by_hand(sequence)
        np.testing.assert_allclose(result.tracks[sequence.name].boxes, boxes, atol=1e-3)
        np.testing.assert_allclose(result.tracks[sequence.name].confidence, scores, atol=1e-5)
    from pytracking.tracker.corr.corr import Corr

    assert Corr.started == 3, "a fresh tracker for each sequence"
    assert not (checkout / "pytracking" / "evaluation" / "local.py").exists(), "the checkout is not touched"


def test_a_checkout_knows_where_its_networks_are(fresh: None, root: Path, tmp_path: Path) -> None:
    local = """
        from pytracking.evaluation.environment import EnvSettings
        def local_env_settings():
            settings = EnvSettings()
            settings.network_path = "/no/such/place/"
            return settings
        """
    checkout = make_checkout(tmp_path / "checkout", PYTRACKING | {"pytracking/evaluation/local.py": local})
    given = {"checkout": str(checkout), "tracker": "corr", "parameter": "plain", "device": "cpu"}
    with pytest.raises(UserError, match=r"'square0', frame 0: .*Pytracking.init: FileNotFoundError: .*/no/such/place/net.pth"):
        follow(ADAPTER, root, tmp_path / "r", arguments=given)
    result = follow(ADAPTER, root, tmp_path / "s", arguments={**given, "parameters": {"reach": 12}})
    assert result.summary["SR"] > 85
    for change, said in (
        ({"tracker": "cor"}, "unknown tracker in .*'cor'. Did you mean 'corr'"),
        ({"parameter": "plan"}, "unknown parameter in .*'plan'. Did you mean 'plain'"),
        ({"aux": "picture"}, "unknown use of the second modality 'picture'"),
        ({"checkout": str(tmp_path)}, "is no checkout of pytracking"),
        ({"networks": "nowhere"}, "there is no folder .*nowhere"),
        ({"aux": "image"}, r"initialize\(image, info\) takes 1 image\(s\), and aux=image gives 2"),
    ):
        with pytest.raises(UserError, match=said):
            follow(ADAPTER, root, tmp_path / "t", arguments={**given, "parameters": {"reach": 12}, **change})


@pytest.mark.parametrize("aux", EVENTS)
def test_checkouts_that_take_event_images(fresh: None, tmp_path: Path, aux: str) -> None:
    """As AFNet (a second image) and FENet (a list of three) do."""
    files = PYTRACKING | {"pytracking/tracker/corr/corr.py": EVENTS[aux]}
    checkout = make_checkout(tmp_path / "checkout", files)
    layouts.miniature("fe108", "stacks", tmp_path / "FE108", frames=4)
    given = {"checkout": str(checkout), "tracker": "corr", "parameter": "plain", "networks": str(tmp_path)}
    given["parameters"] = {"reach": 12}
    options = {"on": "fe108", "modality": None}
    with pytest.raises(
        UserError, match=r"takes 2 image\(s\), and aux=none gives 1. .*aux=parts \(FENet.* or aux=image \(AFNet"
    ):
        follow(ADAPTER, tmp_path / "FE108", tmp_path / "r", arguments=given, **options)
    with pytest.raises(UserError, match=f"aux={aux} needs a second modality"):
        follow(ADAPTER, tmp_path / "FE108", tmp_path / "q", arguments={**given, "aux": aux}, on="fe108", modality="rgb")
    protocol = {"protocol": "plain"}
    result = follow(ADAPTER, tmp_path / "FE108", tmp_path / "s", arguments={**given, "aux": aux}, **options, **protocol)
    for sequence in result.sequences:
        track = result.tracks[sequence.name]
        if aux == "image":
            assert np.isnan(track.boxes[1:]).all() and (track.confidence[1:] == 0).all(), "it says that it has lost the target"
            continue
        files = [sequence.aux[2].paths[part] for part in range(3)]
        means = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).mean() for file in files]
        np.testing.assert_allclose(track.boxes[2], [*means, 1], atol=1e-3)
        assert (track.confidence[1:] == 0.5).all()


@pytest.mark.parametrize("alike", ["STARK", "ViPT"])
def test_a_checkout_of_the_line_of_stark(fresh: None, root: Path, tmp_path: Path, alike: str) -> None:
    files = {
        path.replace("pytracking/", "lib/test/"): text.replace("pytracking.", "lib.test.") for path, text in PYTRACKING.items()
    }
    files |= {"lib/__init__.py": "", "lib/test/tracker/corr.py": files.pop("lib/test/tracker/corr/corr.py")}
    del files["lib/test/tracker/corr/__init__.py"], files["lib/test/parameter/corr/__init__.py"], files["ltr/__init__.py"]
    plain = files.pop("lib/test/parameter/corr/plain.py")
    files["lib/test/parameter/corr.py"] = plain.replace("parameters(reach=None)", "parameters(yaml_name, reach=None)").replace(
        "env_settings().network_path + ", 'env_settings().save_dir + "/checkpoints/" + yaml_name + '
    )
    files["lib/test/tracker/corr.py"] = files["lib/test/tracker/corr.py"].replace(
        "def __init__(self, params)", "def __init__(self, params, dataset_name)"
    ).replace('== (False, False, 0, "cpu")', '== (False, False, 0, "cpu") and image.shape[2] == 6').replace(
        "cvtColor(image,", "cvtColor(image[..., 3:],"
    ) + textwrap.indent("\ndef get_tracker_class():\n    return Corr\n", "        ")
    if alike == "ViPT":  # and SDSTrack: no data set, and the score is returned
        text = files["lib/test/tracker/corr.py"].replace(", dataset_name)", ")")
        returned = '{"target_bbox": self.last, "best_score": self.debug_info.pop("max_score")}'
        files["lib/test/tracker/corr.py"] = text.replace('{"target_bbox": self.last}', returned)
    checkout = make_checkout(tmp_path / "checkout", files)
    (tmp_path / "out" / "checkpoints").mkdir(parents=True)
    (tmp_path / "out" / "checkpoints" / "baselinenet.pth").write_text("12")
    given = {"checkout": str(checkout), "tracker": "corr", "parameter": "baseline", "networks": str(tmp_path / "out")}
    result = follow(ADAPTER, root, tmp_path / "r", arguments={**given, "device": "cpu", "aux": "channels"})
    for sequence in result.sequences:
        boxes, scores = by_hand(sequence, "aux")
        np.testing.assert_allclose(result.tracks[sequence.name].boxes, boxes, atol=1e-3)
        np.testing.assert_allclose(result.tracks[sequence.name].confidence, scores, atol=1e-5)


def test_two_checkouts_do_not_mix(fresh: None, tmp_path: Path) -> None:
    one, two = (make_checkout(tmp_path / name, PYTRACKING) for name in ("one", "two"))
    given = {"tracker": "corr", "parameter": "plain", "networks": str(tmp_path)}
    tracker = Pytracking(str(one), device="cpu", parameters={"reach": 3}, **given)
    tracker.init(Frame(np.zeros((40, 40, 3), np.uint8)), (10, 10, 8, 8))
    with pytest.raises(UserError, match=r"a package 'pytracking' of .*one.* is in use already"):
        Pytracking(str(two), **given)
