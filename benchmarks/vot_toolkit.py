"""The official VOT toolkit runs a shipped tracker on two RGB-D sequences; its results and its analysis against ours.

    python benchmarks/vot_toolkit.py [--env DIR] [--out DIR] [--frames 60]

Makes the toolkit's environment (or uses the one in --env), two sequences of the embedded benchmark in DepthTrack's layout, and
a workspace for each experiment with `mst vot init`; runs `vot evaluate` and `vot analysis`; exits with 1 unless every sequence
has a result, with confidences, that is what `follow` gives, and the toolkit's F-score is ours. The toolkit (GPL-3) is a program
apart: nothing of it is imported.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence as List
from pathlib import Path
from typing import Any

import numpy as np

from mstrack import load
from mstrack.data import Sequence, load_sequences, synthetic
from mstrack.data.splits import read_list
from mstrack.errors import DataWarning
from mstrack.lockstep import follow
from mstrack.metrics import longterm

TRACKER = "mst-tiny-depth"
REQUIREMENTS = ("vot-toolkit==0.7.3", "vot-trax==4.0.2", "attributee<0.1.10")
TOLERANCE = 2e-3
"""Pixels: the protocol has four decimals from the client, single precision in between."""


def make_environment(folder: Path) -> Path:
    """Install the toolkit where it is not there yet; its `vot` command."""
    command = folder / "bin" / "vot"
    if not command.exists():
        run([sys.executable, "-m", "venv", folder])
        run([folder / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *REQUIREMENTS])
    return command


def make_dataset(root: Path, frames: int) -> None:
    """Two sequences of the embedded benchmark under names of DepthTrack's test list, in its layout."""
    made = synthetic.load(None, "test", "depth", sequences=2, frames=frames)
    for name, sequence in zip(read_list("depthtrack", "test").names, made, strict=False):
        for channel, files in (("color", sequence.rgb), ("depth", sequence.aux or ())):
            (root / name / channel).mkdir(parents=True)
            for number, file in enumerate(files, start=1):
                shutil.copy(str(file), root / name / channel / f"{number:08d}{Path(str(file)).suffix}")
        boxes = np.where(sequence.valid[:, None], sequence.boxes, np.nan)
        (root / name / "groundtruth.txt").write_text("".join(",".join(map(repr, row)) + "\n" for row in boxes.tolist()))


def evaluate(vot: Path, workspace: Path, on: str, root: Path) -> dict[str, Any]:
    """`mst vot init`, `vot evaluate`, `vot analysis`; what the analysis found."""
    run([sys.executable, "-m", "mstrack", "vot", "init", workspace, "--on", on, "--root", root, "--checkpoint", TRACKER])
    start = time.perf_counter()
    run([vot, "evaluate", "--workspace", workspace, TRACKER])
    print(f"vot evaluate: {time.perf_counter() - start:.1f} s")
    run([vot, "analysis", "--workspace", workspace, "--format", "json", "--name", "analysis", TRACKER])
    (report,) = (workspace / "analysis").rglob("*.json")
    return json.loads(report.read_text())


def compare_tracks(results: Path, ending: str, sequences: List[Sequence]) -> dict[str, float]:
    """Largest difference in pixels between the toolkit's results and `follow`, by sequence."""
    ours = {sequence.name: track for sequence, track in follow(load(TRACKER), sequences)}
    worst = {}
    for sequence in sequences:
        boxes, sure = read_result(results, sequence.name, ending)
        track = ours[sequence.name]
        check(boxes.shape == track.boxes.shape, f"{sequence.name} has {len(boxes)} rows for {len(sequence)} frames")
        worst[sequence.name] = float(np.abs(boxes[1:] - track.boxes[1:]).max())
        check(worst[sequence.name] < TOLERANCE, f"{sequence.name}: {worst[sequence.name]} pixels from follow()")
        check(np.abs(sure[1:] - track.confidence[1:]).max() < 1e-4, f"{sequence.name}: other confidences than follow()")
    return worst


def score_ours(results: Path, ending: str, sequences: List[Sequence]) -> dict[str, float]:
    """Our own long-term measures of the toolkit's result files."""
    scores = []
    for sequence in sequences:
        height, width = sequence.frame(0).rgb.shape[:2]
        boxes, sure = read_result(results, sequence.name, ending)
        scores.append(longterm.score(boxes, sure, sequence.boxes, sequence.valid, size=(width, height)))
    return dict(longterm.summarise(scores))


def read_result(results: Path, name: str, ending: str) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and confidences; NaN in the first frame, where the toolkit writes none."""
    file = results / name / f"{name}_{ending}.txt"
    check(file.is_file(), f"there is no result {file}")
    rows = [line.split(",") for line in file.read_text().split()]
    words = file.with_name(f"{file.stem}_confidence.value").read_text().split("\n")[: len(rows)]
    boxes = [[float(value) for value in row] if len(row) == 4 else [np.nan] * 4 for row in rows]
    return np.array(boxes), np.array([float(word) if word.strip() else np.nan for word in words])


def run(command: List[object]) -> None:
    print("$", shlex.join(map(str, command)), flush=True)
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "VOT_RESULTS_BINARY": "false"}
    done = subprocess.run(list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = [line for line in re.sub(r"\x1b\[\d*m", "", done.stdout).splitlines() if line.strip() and not line.endswith("%")]
    print("".join(f"    {line}\n" for line in said), end="", flush=True)
    check(done.returncode == 0, f"exit code {done.returncode}")


def check(sound: bool, otherwise: str) -> None:
    if not sound:
        sys.exit(f"FAILED: {otherwise}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=Path, help="environment of the toolkit; made where there is none")
    parser.add_argument("--out", type=Path, help="folder of the data and workspaces; default: a temporary one")
    parser.add_argument("--frames", type=int, default=60)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)
    with tempfile.TemporaryDirectory(prefix="vot") as temporary:
        out = arguments.out or Path(temporary)
        vot = make_environment((arguments.env or Path(temporary) / "env").absolute())
        data = out / "RGB-D data é"
        make_dataset(data, arguments.frames)
        sequences = list(load_sequences("depthtrack", "test", data))
        for on, experiment, ending in (("depthtrack", "rgbd-unsupervised", "001"), ("vot-rgbd", "baseline", "00000000")):
            workspace = out / f"workspace {on}"
            analysis = evaluate(vot, workspace, on, data)["results"][experiment]["results"]
            results = workspace / "results" / TRACKER / experiment
            print("largest difference from follow(), pixels:", compare_tracks(results, ending, sequences))
            if on == "depthtrack":
                theirs = dict(zip(("Pr", "Re", "F"), (100 * value for value in analysis[0][0]), strict=True))
                ours = score_ours(results, ending, sequences)
                print(f"VOT toolkit: {theirs}\nmstrack:     {ours}")
                check(all(abs(theirs[key] - ours[key]) < 1e-4 for key in theirs), "the two differ")
            else:
                eao, accuracy, robustness = (100 * value for value in (analysis[0][0][0], *analysis[2][0][:2]))
                print(f"VOT toolkit: EAO {eao:.4f}, accuracy {accuracy:.4f}, robustness {robustness:.4f}")
    print("passed")


if __name__ == "__main__":
    main()
