"""TraX spoken with a few lines of our own client, and workspaces read back; the real toolkit: benchmarks/vot_toolkit.py."""

import configparser
import io
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import layouts
import numpy as np
import pytest
import yaml

from mstrack import checkpoint, create_model
from mstrack.data import Sequence, load_sequences
from mstrack.data.splits import read_list
from mstrack.errors import DataWarning, UserError
from mstrack.lockstep import follow
from mstrack.trax import LINE_LIMIT, Message, Stream, format_message, parse_message, parse_rectangle
from mstrack.vot import process
from mstrack.vot.workspace import SPACING, make_workspace, place_anchors

pytestmark = pytest.mark.filterwarnings("ignore::mstrack.errors.DataWarning")
ODD = 'RGB-D dâta\u00a0ünd "quotes" back\\slash a=b'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights, and DepthTrack in miniature in a folder with an awkward name."""
    root = tmp_path_factory.mktemp("vot")
    small = create_model("mst-tiny", width=32, depth=2, heads=2, cross_layers=(1,))
    checkpoint.save(root / "small.safetensors", small, {"config": {"data": {"modality": "depth"}}})
    layouts.miniature("depthtrack", "as released", root / ODD, frames=5)
    return root


@pytest.fixture(scope="module")
def sequences(place: Path) -> list[Sequence]:
    return list(load_sequences("depthtrack", "test", place / ODD))


class Client:
    """The other side of the protocol: says something, hears messages."""

    def __init__(self, source: io.BufferedIOBase, sink: io.BufferedIOBase) -> None:
        self.source, self.sink = source, sink

    def say(self, kind: str, *arguments: str) -> None:
        self.sink.write(f"noise\n{format_message(Message(kind, arguments))} \n".encode())
        self.sink.flush()

    def hear(self) -> Message:
        while line := self.source.readline():
            if message := parse_message(line.decode()):
                return message
        raise EOFError("the tracker's process has ended without a word")

    def follow(self, sequence: Sequence) -> tuple[np.ndarray, list[float]]:
        """Boxes and confidences of a whole sequence."""
        self.say("initialize", *images(sequence, 0), ",".join(f"{value:.4f}" for value in sequence.boxes[0]))
        answers = [self.hear()]
        for index in range(1, len(sequence)):
            self.say("frame", *images(sequence, index))
            answers.append(self.hear())
        assert all(answer.kind == "state" for answer in answers)
        boxes = np.array([parse_rectangle(*answer.arguments) for answer in answers])
        return boxes, [float(answer.properties["confidence"]) for answer in answers]


def images(sequence: Sequence, index: int) -> list[str]:
    assert sequence.aux is not None
    return [f"file://{sequence.rgb[index]}", f"file://{sequence.aux[index]}"]


def start(place: Path, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mstrack", "vot", "run", str(place / "small.safetensors"), "--device", "cpu", *options]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env={**os.environ, **environment}, **streams)


# ---- the process


def test_a_client_gets_what_follow_gives(place: Path, sequences: list[Sequence]) -> None:
    ours = {s.name: track for s, track in follow(checkpoint.load(place / "small.safetensors"), sequences)}
    with start(place, "--modality", "depth") as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        client = Client(process.stdout, process.stdin)
        hello = client.hear()
        assert hello.kind == "hello" and not hello.arguments
        assert hello.properties.items() >= {
            "trax.version": "3",
            "trax.image": "path",
            "trax.region": "rectangle",
            "trax.channels": "color;depth",
            "trax.name": "small",
        }.items()  # fmt: skip
        for sequence in sequences:
            boxes, scores = client.follow(sequence)
            np.testing.assert_allclose(boxes, ours[sequence.name].boxes, atol=1e-4)
            np.testing.assert_allclose(scores, ours[sequence.name].confidence, atol=1e-6)
        client.say("quit")
        assert process.stdout.read() == b"" and process.stderr.read() == b""
    assert process.returncode == 0


def test_a_client_may_listen_at_a_port(place: Path, sequences: list[Sequence]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        with start(place, TRAX_SOCKET=str(server.getsockname()[1])) as process:
            connection, _ = server.accept()
            with connection, connection.makefile("rwb") as file:
                client = Client(file, file)
                assert client.hear().properties["trax.channels"] == "color;depth", "not as trained"
                assert len(client.follow(sequences[0])[0]) == len(sequences[0])
                client.say("frame", "file:///only/one.jpg")
                refusal = client.hear()
            out, err = process.communicate()
    assert refusal.kind == "quit" and "1 argument(s), expected color, depth" in refusal.properties["trax.reason"]
    assert process.returncode == 2 and out == b""
    assert b"error: TraX: 'frame' has 1 argument(s)" in err and b"Traceback" not in err


@pytest.fixture
def answer(place: Path, monkeypatch: pytest.MonkeyPatch):
    """What a process answers to some lines, in this process."""

    def run(*lines: str, missing: str = "error", modality: str | None = "depth") -> list[Message]:
        heard = io.BytesIO()

        @contextmanager
        def open_stream():
            yield Stream(io.BytesIO("".join(f"{line}\n" for line in lines).encode()), heard)

        monkeypatch.setattr(process, "open_stream", open_stream)
        try:
            process.run(str(place / "small.safetensors"), modality, "cpu", missing)
        finally:
            run.said = [m for m in map(parse_message, heard.getvalue().decode().splitlines()) if m]
        return run.said

    return run


MASK = "m10,10,4,4,0,16"
POLYGON = "1,1,9,1,9,9,1,9"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["@@TRAX:frame {images}"], "'frame' out of turn"),
        (["@@TRAX:hello"], "'hello' out of turn"),
        (["@@TRAX:dance"], "'dance' is no message"),
        (["@@TRAX:initialize {images}"], "2 argument(s), expected color, depth, region"),
        (['@@TRAX:initialize "unfinished'], "malformed from here on"),
        ([f'@@TRAX:initialize {{images}} "{MASK}"'], "the region is a mask (m10,10"),
        ([f'@@TRAX:initialize {{images}} "{POLYGON}"'], "the region is a polygon"),
        (['@@TRAX:initialize {images} "1"'], "no rectangle left,top,width,height"),
        (['@@TRAX:initialize {images} "nan,nan,nan,nan"'], "expected four finite numbers"),
        (['@@TRAX:initialize {images} "500,500,9,9"'], "lies outside the image of 64 x 48"),
        (['@@TRAX:initialize "image:2;2;rgb;AAAA" "data:image/png;AAAA" "1,1,9,9"'], "takes images as paths of files alone"),
        (['@@TRAX:initialize "file:///no.jpg" "file:///no.png" "1,1,9,9"'], "/no.jpg"),
        (["x" * LINE_LIMIT], "more than"),
        ([], "went away without saying quit"),
    ],
)
def test_bad_messages_are_told_and_end_it(answer, sequences: list[Sequence], lines: list[str], said: str) -> None:
    shown = format_message(Message("", tuple(images(sequences[0], 0)))).partition(" ")[2]
    with pytest.raises(UserError, match=re.escape(said)):
        answer(*(line.replace("{images}", shown) for line in lines))
    assert [message.kind for message in answer.said] == ["hello", "quit"]
    assert said in answer.said[-1].properties["trax.reason"]


def test_what_cannot_be_loaded_is_told(place: Path, answer) -> None:
    with pytest.raises(UserError, match="the VOT toolkit sends color, depth and ir, no events"):
        answer(modality="event")
    (place / "small.safetensors").rename(place / "away")
    try:
        with pytest.raises(UserError, match="there is no checkpoint file"):
            answer()
    finally:
        (place / "away").rename(place / "small.safetensors")
    assert "there is no checkpoint file" in answer.said[-1].properties["trax.reason"]


def test_a_frame_without_depth_follows_the_policy(answer, sequences: list[Sequence]) -> None:
    first, second = (format_message(Message("", tuple(images(sequences[0], i)))).partition(" ")[2] for i in (0, 1))
    lines = [f'@@TRAX:initialize {first} "10,10,16,12"', f"@@TRAX:frame {second.replace('.png', '.gone')}"]
    with pytest.raises(UserError, match=r"does not exist.*--missing"):
        answer(*lines)
    with pytest.warns(DataWarning, match="1 of 2 frames lacked their depth: --missing zero"):
        assert [message.kind for message in answer(*lines, "@@TRAX:quit", missing="zero")] == ["hello", "state", "state"]


# ---- the workspace


def make(place: Path, folder: Path, on: str = "depthtrack", **options):
    given = {"checkpoint": str(place / "small.safetensors"), "root": place / ODD} | options
    return make_workspace(folder, on, **given)


def test_a_workspace_for_depthtrack(place: Path, tmp_path: Path, sequences: list[Sequence], monkeypatch) -> None:
    monkeypatch.chdir(place)
    made = make(place, tmp_path / "space", checkpoint="small.safetensors", root=Path(ODD))
    folder, listed = tmp_path / "space", read_list("depthtrack", "test").names
    assert (made.tracker, made.channels, made.sequences, made.anchored) == ("small", ("color", "depth"), 2, 0)
    assert made.missing == listed[2:]
    assert yaml.safe_load((folder / "config.yaml").read_text())["stack"] == "depthtrack.yaml"
    stack = yaml.safe_load((folder / "depthtrack.yaml").read_text())
    assert stack["dataset"] is None and list(stack["experiments"]) == ["rgbd-unsupervised"]
    assert (folder / "sequences" / "list.txt").read_text().split() == list(listed[:2])
    trackers = configparser.ConfigParser()
    trackers.read(folder / "trackers.ini")
    assert trackers["small"]["protocol"] == "trax"
    command = shlex.split(trackers["small"]["command"])
    assert command[:5] == [sys.executable, "-m", "mstrack", "vot", "run"] and Path(command[5]).is_absolute()
    assert command[6:] == ["--modality", "depth", "--device", "auto", "--missing", "zero"]
    read = load_sequences("vot-rgbd", "test", folder)
    for one, other in zip(read, sequences, strict=True):
        assert one.name == other.name and (folder / "sequences" / one.name / "color").is_symlink()
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.frame(1).aux, other.frame(1).aux)


def test_a_workspace_takes_more_trackers_and_replaces_nothing(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "space"
    make(place, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    make(place, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    make(place, folder, name="again", device="cpu")
    trackers = configparser.ConfigParser()
    trackers.read(folder / "trackers.ini")
    assert trackers.sections() == ["small", "again"] and "--device cpu" in trackers["again"]["command"]
    with pytest.raises(UserError, match="another tracker 'small' already"):
        make(place, folder, device="cpu")
    (folder / "config.yaml").write_text("stack: mine.yaml\n")
    with pytest.raises(UserError, match=r"something else already at .*config\.yaml"):
        make(place, folder, name="third")
    assert (folder / "config.yaml").read_text() == "stack: mine.yaml\n"
    assert "third" not in (folder / "trackers.ini").read_text()


def test_absent_targets_are_nan_and_frames_count_from_1(place: Path, tmp_path: Path) -> None:
    names = read_list("depthtrack", "test").names
    tree = layouts.tree_of("depthtrack", "as released")
    layouts.build(tree, tmp_path / "data", names[:1], absent=(3,))
    layouts.build(tree, tmp_path / "data", names[1:2], absent=(0,))
    for file in sorted((tmp_path / "data" / names[0] / "depth").iterdir()):
        file.rename(file.with_name(f"{int(file.stem) - 1:04d}.png"))
    make(place, tmp_path / "space", root=tmp_path / "data")
    first, second = (tmp_path / "space" / "sequences" / name for name in names[:2])
    truth = (first / "groundtruth.txt").read_text().split()
    assert truth[3] == "nan,nan,nan,nan" and truth[2].count(",") == 3 and "nan" not in truth[2]
    assert "channels.depth=depth/%08d.png" in (first / "sequence").read_text()
    assert (first / "depth" / "00000001.png").resolve().name == "0000.png"
    assert (second / "color" / "00000001.jpg").resolve().name == "00000002.jpg", "it starts where the target is"
    assert "length=5" in (second / "sequence").read_text()


def test_a_workspace_for_multi_start(place: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(place / ODD, data / "all")
    own = next((data / "all").rglob("groundtruth.txt")).parent
    (own / "sequence").write_text("channels.color=color/%08d.jpg\nchannels.depth=depth/%08d.png\n")
    (own / "anchor.value").write_text("1\n0\n0\n0\n-1\n")
    made = make(place, tmp_path / "space", "vot-rgbd", root=data)
    folder = tmp_path / "space" / "sequences"
    assert made.anchored == made.sequences - 1
    assert (folder / own.name / "anchor.value").read_text() == "1\n0\n0\n0\n-1\n"
    assert {path.name for path in (folder / own.name).iterdir()} == {path.name for path in own.iterdir()}
    for name in (folder / "list.txt").read_text().split():
        assert (folder / name / "anchor.value").read_text().split()[0] == "1"
        assert (folder / name / "groundtruth.txt").is_file() and (folder / name / "sequence").is_file()
    assert "multistart" in (tmp_path / "space" / "vot-rgbd.yaml").read_text()


def test_anchors_lie_where_there_is_a_target() -> None:
    count = 3 * SPACING
    valid = np.ones(count, bool)
    valid[SPACING : SPACING + 3] = False
    valid[2 * SPACING :] = False
    frames = [Path("x.jpg")] * count
    anchors = place_anchors(Sequence("one", frames, np.full((count, 4), np.nan), valid))
    assert {frame: value for frame, value in enumerate(anchors) if value} == {0: 1, SPACING + 3: 1}
    valid[-1] = True
    anchors = place_anchors(Sequence("one", frames, np.full((count, 4), np.nan), valid))
    assert anchors[-1] == -1 and len(anchors) == count


def test_thermal_comes_as_ir(place: Path, tmp_path: Path) -> None:
    layouts.build(layouts.tree_of("vot-rgbd", "thermal"), tmp_path / "data", ["one"])
    with pytest.warns(DataWarning, match="was trained on depth; here it is fed thermal"):
        made = make(place, tmp_path / "space", "vot-rgbd", root=tmp_path / "data")
    assert made.channels == ("color", "ir")
    assert "--modality thermal" in (tmp_path / "space" / "trackers.ini").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--on", "depthtrack", "--checkpoint", "nowhere.safetensors"], "there is no checkpoint file nowhere.safetensors"),
        (["--on", "depthtrack", "--root", "nowhere", "--checkpoint", "small.safetensors"], "there is no folder nowhere"),
        (["--on", "depthtrack", "--checkpoint", "small.safetensors", "--data-root", "."], "no folder of 'depthtrack'"),
    ],
)
def test_what_init_refuses(place: Path, options: list[str], said: str) -> None:
    command = [sys.executable, "-m", "mstrack", "vot", "init", "space", *options]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (place / "space").exists()


def test_names_that_the_toolkit_refuses(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes no tracker called 'a b'"):
        make(place, tmp_path / "space", name="a b")
    with pytest.raises(UserError, match="it takes the % for the number"):
        make(place, tmp_path / "100%")
    assert not list(tmp_path.iterdir())
