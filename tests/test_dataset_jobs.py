"""The jobs of the command line, end to end, on a miniature of each dataset of the paper and of a user's own data."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from commands import mst
from layouts import build, miniature, tree_of

from mstrack import checkpoint
from mstrack.assembly import build_model
from mstrack.clip import modality_of
from mstrack.config import check_config
from mstrack.data.own import init
from mstrack.data.splits import read_list
from mstrack.errors import DataWarning, UserError
from mstrack.evaluation import evaluate
from mstrack.metrics.protocols import protocol_of
from mstrack.rawresults.export import export_paths
from mstrack.results import read_track
from mstrack.training import train

pytestmark = pytest.mark.filterwarnings("ignore::mstrack.errors.DataWarning")
FRAMES, SIZE = 24, (72, 96)
CASES = [
    ("fe108", "stacks", "event"),
    ("fe108", "recordings", "event"),
    ("visevent", "as released", "event"),
    ("visevent", "recordings", "event"),
    ("coesot", "as released", "event"),
    ("depthtrack", "as released", "depth"),
    ("lasher", "as released", "thermal"),
]
"""Dataset, variant of its layout, modality."""


def recipe(dataset: str, modality: str, out: Path, data_root: Path) -> dict[str, Any]:
    return {
        "model": {"name": "mst-tiny", "arguments": {"width": 32, "depth": 2, "heads": 2, "cross_layers": [1]}},
        "data": {
            "modality": modality,
            "train": [{"name": dataset, "split": "train"}],
            "val": [{"name": dataset, "split": "val"}],
        },
        "tuning": {"name": "mst", "parameters": {"head.*": 0, "position_*": 0, "*": 1}},
        "train": {"lr": 1e-3, "epochs": 1, "samples": 8, "batch": 4, "val_samples": 4, "val_clips": 1, "val_frames": 4},
        "run": {"out": str(out), "data_root": str(data_root), "workers": 0, "tensorboard": False, "device": "cpu"},
    }


@pytest.mark.parametrize(("dataset", "variant", "modality"), CASES)
def test_train_and_eval(tmp_path: Path, dataset: str, variant: str, modality: str) -> None:
    if variant == "recordings":
        pytest.importorskip("dv_processing")
    data_root, out = tmp_path / "data", tmp_path / "run"
    miniature(dataset, variant, data_root / f"{dataset}-mini", FRAMES, SIZE)
    trained = train(recipe(dataset, modality, out, data_root))
    provenance = checkpoint.load(trained).provenance
    assert [used["name"] for used in provenance["lists"]] == [f"{dataset}/train", f"{dataset}/val"]
    assert [used["sequences"] for used in provenance["lists"]] == [2, 1]
    result = evaluate(trained, dataset, tmp_path / "results", data_root=data_root)
    assert len(result.scores) == 2
    stored = json.loads((tmp_path / "results" / "scores.json").read_text())
    assert stored["stamp"]["protocol"] == protocol_of(dataset)
    used = stored["stamp"]["list"]
    assert used["name"] == f"{dataset}/test"
    assert (used["sequences"], used["of"]) == (2, len(read_list(dataset, "test").names))
    for sequence in result.sequences:
        assert sequence.modality == modality
        track = read_track(result.folder, sequence.name)
        assert track is not None
        assert len(track.boxes) == FRAMES
        assert track.lacking == ()


def test_eval_says_the_long_term_f_of_a_benchmark_that_is_ranked_by_it(tmp_path: Path) -> None:
    miniature("depthtrack", "as released", tmp_path / "DepthTrack", FRAMES, SIZE)
    out = tmp_path / "out"
    done = mst(
        "eval", "mst-tiny-depth", "--on", "depthtrack", "--data-root", str(tmp_path), "--out", str(out), "--device", "cpu"
    )
    found = json.loads((out / "scores.json").read_text())["scores"]
    said = f"long-term: F {found['F']:.1f}, Pr {found['Pr']:.1f}, Re {found['Re']:.1f}"
    assert said in done.stdout
    assert said.removeprefix("long-term: ") in (out / "report.html").read_text()


def test_own_data_needs_no_code(tmp_path: Path) -> None:
    """`mst data init`, frames copied in, then `check`, `train` and `eval` as the README it writes says."""
    folder = tmp_path / "mine"
    assert mst("data", "init", folder, "--modality", "depth", MST_DATA=tmp_path).returncode == 0
    miniature("own", "folders", folder, FRAMES, SIZE, modality="depth")
    checked = mst("data", "check", folder, "--out", tmp_path / "check.json", MST_DATA=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    settings = [f"run.out={tmp_path / 'run'}", "train.epochs=1", "train.samples=16", "train.val_samples=8", "run.workers=0"]
    trained = mst("train", folder / "recipe.yaml", *settings, MST_DATA=tmp_path)
    assert trained.returncode == 0, trained.stderr
    weights = tmp_path / "run" / "model.safetensors"
    scored = mst("eval", weights, "--on", folder, "--out", tmp_path / "results", MST_DATA=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert json.loads((tmp_path / "results" / "run.json").read_text())["modality"] == "depth"
    recipe_text = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert recipe_text["data"]["modality"] == "depth"


def test_missing_sequences_are_a_warning_or_with_strict_an_error(tmp_path: Path) -> None:
    miniature("lasher", "numbered", tmp_path / "LasHeR", 6, SIZE)
    done = mst("eval", "mst-tiny-thermal", "--on", "lasher", "--out", tmp_path / "r", MST_DATA=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "243 of 245 sequences are not in" in done.stderr
    refused = mst("eval", "mst-tiny-thermal", "--on", "lasher", "--out", tmp_path / "s", "--strict", MST_DATA=tmp_path)
    assert refused.returncode == 2
    assert "2 of 245 sequences can be read" in refused.stderr
    nowhere = mst("eval", "mst-tiny-thermal", "--on", "visevent", MST_DATA=tmp_path)
    assert nowhere.returncode == 2
    assert "mst data list" in nowhere.stderr
    assert "Traceback" not in nowhere.stderr


def test_a_checkpoint_of_another_modality_is_a_warning_and_the_record_says_what_was_read(tmp_path: Path) -> None:
    miniature("lasher", "numbered", tmp_path / "LasHeR", 6, SIZE)
    init(tmp_path / "mine", "thermal")
    miniature("own", "folders", tmp_path / "mine", 6, SIZE, modality="thermal")
    for on in ("lasher", str(tmp_path / "mine")):
        out = tmp_path / f"results-{Path(on).name}"
        with pytest.warns(DataWarning, match="mst-tiny-depth: was trained on depth; here it is fed thermal"):
            result = evaluate("mst-tiny-depth", on, out, data_root=tmp_path)
        assert result.sequences[0].modality == "thermal"
        assert json.loads((out / "run.json").read_text())["modality"] == "thermal"
        with pytest.raises(UserError, match=r"thermal, not depth|says 'modality: thermal', and depth was asked for"):
            evaluate("mst-tiny-depth", on, out, data_root=tmp_path, modality="depth")
    settings = recipe("lasher", "thermal", tmp_path / "run", tmp_path)
    with pytest.warns(DataWarning, match="mst-tiny-depth: was trained on depth; here it is fed thermal"):
        build_model(check_config(settings | {"model": {"name": "mst-tiny", "weights": "mst-tiny-depth"}}))


def test_the_modality_of_a_clip(tmp_path: Path) -> None:
    init(tmp_path / "mine", "depth")
    rgb, aux = tmp_path / "mine/test/a/rgb", tmp_path / "mine/test/a/aux"
    assert modality_of(rgb, aux, None, "thermal") == "depth"
    assert modality_of(rgb, tmp_path / "events.npz", None, "thermal") == "event"
    assert modality_of(rgb, tmp_path / "aux", None, "thermal") == "thermal"
    assert modality_of(rgb, tmp_path / "aux", "event", "thermal") == "event"
    with pytest.raises(UserError, match="aux holds depth, not thermal"):
        modality_of(rgb, aux, "thermal", "thermal")
    (tmp_path / "mine/data.yaml").write_text("names: [cat, dog]\n")  # somebody else's
    assert modality_of(rgb, aux, None, "thermal") == "thermal"


def test_validating_on_what_is_trained_on_is_a_warning(tmp_path: Path) -> None:
    miniature("lasher", "as released", tmp_path / "LasHeR", FRAMES, SIZE)
    settings = recipe("lasher", "thermal", tmp_path / "run", tmp_path)
    settings["data"]["train"] = [{"name": "lasher", "split": "train-official"}]
    with pytest.warns(DataWarning, match="lasher/val: 1 of 1 validation sequences are also trained on"):
        train(settings)


def test_few_warnings_of_a_kind_are_shown(tmp_path: Path) -> None:
    made = miniature("lasher", "as released", tmp_path / "LasHeR", 6, SIZE)
    for name in [name for split in made.values() for name in split]:
        next((tmp_path / "LasHeR" / name / "infrared").glob("*00004.jpg")).unlink()
    command = ["eval", "mst-tiny-thermal", "--on", "lasher", "--split", "all", "--out", tmp_path / "r"]
    shown = mst(*command, MST_DATA=tmp_path).stderr
    assert shown.count("paired by the numbers in their names") == 3
    assert shown.count("there is more of this kind (pairs): `mst data check` lists all") == 1


def test_crops_can_be_cached(tmp_path: Path) -> None:
    miniature("depthtrack", "as released", tmp_path / "DepthTrack", FRAMES, SIZE)
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe("depthtrack", "depth", tmp_path / "run", tmp_path)))
    made = mst("data", "cache", path, "--out", tmp_path / "crops", MST_DATA=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "3 sequence(s) made, 0 kept" in made.stdout
    again = mst("data", "cache", path, "--out", tmp_path / "crops", MST_DATA=tmp_path)
    assert "0 sequence(s) made, 3 kept" in again.stdout
    assert f"data.crops={tmp_path / 'crops'}" in again.stdout
    trained = mst("train", path, f"data.crops={tmp_path / 'crops'}", MST_DATA=tmp_path)
    assert trained.returncode == 0, trained.stderr


def test_rows_that_were_cut_off_are_scored_by_the_datasets_own_rule(tmp_path: Path) -> None:
    """VisEvent: the tracker starts where the target appears, the official denominator has all annotated rows."""
    made = miniature("visevent", "as released", tmp_path / "VisEvent", FRAMES, SIZE)
    name = next(iter(made["test"]))
    for file, line in (("groundtruth.txt", "0,0,0,0"), ("absent_label.txt", "0")):
        path = tmp_path / "VisEvent" / name / file
        path.write_text("\n".join([line] * 6 + path.read_text().splitlines()[6:]) + "\n")
    found = {}
    for protocol in (None, "plain"):
        out = tmp_path / str(protocol)
        result = evaluate("mst-tiny-event", "visevent", out, data_root=tmp_path, protocol=protocol)
        found[protocol] = json.loads((out / "scores.json").read_text())["per_sequence"][name]
        assert [len(s.iou) for s in result.scores] == [len(s) for s in result.sequences] == [FRAMES - 6, FRAMES]
    assert (found[None]["frames"], found["plain"]["frames"]) == (FRAMES, FRAMES - 6)
    assert found[None]["SR"] < found["plain"]["SR"]


def test_what_the_reader_forgives_is_scored(tmp_path: Path) -> None:
    """VisEvent, by its own rule: a surplus box, a lost frame, and fewer flags than boxes end no evaluation."""
    root, out = tmp_path / "VisEvent", tmp_path / "results"
    tree, names = tree_of("visevent", "as released"), read_list("visevent", "test").names[:3]
    surplus, lost, short = (root / name for name in names)
    build(tree, root, names, FRAMES, SIZE)
    for file, line in (("groundtruth.txt", "1,2,3,4\n"), ("absent_label.txt", "1\n")):
        with (surplus / file).open("a") as handle:
            handle.write(line)
    for folder in ("vis_imgs", "event_imgs"):
        (lost / folder / "frame0005.bmp").unlink()
    (short / "absent_label.txt").write_text("1\n" * (FRAMES - 2))
    result = evaluate("mst-tiny-event", "visevent", out, data_root=tmp_path)
    assert result.protocol == "matlab"
    scores = json.loads((out / "scores.json").read_text())
    assert [scores["per_sequence"][name]["frames"] for name in names] == [FRAMES, FRAMES - 1, FRAMES]
    (note,) = scores["notes"]
    assert f"{surplus.name} ({FRAMES} of {FRAMES + 1} rows), {lost.name} ({FRAMES - 1} of {FRAMES} rows)" in note


def test_frames_that_are_known_to_be_missing_end_no_tracking_half_way(tmp_path: Path) -> None:
    made = miniature("lasher", "as released", tmp_path / "LasHeR", FRAMES, SIZE)
    whole, lacking = made["test"]
    (tmp_path / "LasHeR" / lacking / "infrared" / f"i_{FRAMES:05d}.jpg").unlink()
    out = tmp_path / "results"
    with pytest.raises(UserError, match=rf"1 of 2 sequences lack thermal frames.*: {lacking} \(1 of {FRAMES}\).*--missing"):
        evaluate("mst-tiny-thermal", "lasher", out, data_root=tmp_path)
    assert not out.exists()
    assert set(evaluate("mst-tiny-thermal", "lasher", out, data_root=tmp_path, missing="last").tracks) == {whole, lacking}


def test_a_dead_sensor_costs_nothing_that_is_finished(tmp_path: Path) -> None:
    made = miniature("lasher", "as released", tmp_path / "LasHeR", FRAMES, SIZE)
    sound, dead = made["test"]
    path = tmp_path / "LasHeR" / dead / "infrared" / f"i_{FRAMES:05d}.jpg"
    path.write_bytes(cv2.imencode(".jpg", np.zeros(SIZE, np.uint8))[1].tobytes())
    out = tmp_path / "results"
    with pytest.raises(UserError, match="a dead sensor"):
        evaluate("mst-tiny-thermal", "lasher", out, data_root=tmp_path, batch=1)
    finished = (out / f"{sound}.txt").stat().st_mtime_ns
    result = evaluate("mst-tiny-thermal", "lasher", out, data_root=tmp_path, missing="zero")
    assert (out / f"{sound}.txt").stat().st_mtime_ns == finished
    assert result.tracks[dead].lacking == (FRAMES - 1,)
    assert json.loads((out / "run.json").read_text())["missing"] == "zero"
    with pytest.raises(UserError, match="missing: zero there, last now"):
        evaluate("mst-tiny-thermal", "lasher", out, data_root=tmp_path, missing="last")


def test_results_of_a_sequence_that_has_changed_since_are_refused_before_anything_is_tracked(tmp_path: Path) -> None:
    folder, out = tmp_path / "mine", tmp_path / "results"
    build(tree_of("own", "folders"), folder, ["one", "two"], FRAMES, SIZE)
    (folder / "data.yaml").write_text("modality: thermal\n")
    result = evaluate("mst-tiny-thermal", str(folder), out)
    (out / "two.txt").unlink()
    annotation = folder / "test" / "one" / "groundtruth.txt"
    first, *rest = annotation.read_text().splitlines()
    x, *others = map(float, first.split(","))
    moved = ",".join(f"{value:g}" for value in (x + 2, *others))
    annotation.write_text("\n".join([moved, *rest]) + "\n")
    with pytest.raises(
        UserError, match=r"'one': it was tracked from the first box .*, which is .* now. Remove it and track again"
    ):
        evaluate("mst-tiny-thermal", str(folder), out)
    assert not (out / "two.txt").exists()
    (out / "one.txt").unlink()
    again = evaluate("mst-tiny-thermal", str(folder), out)
    assert again.tracks["one"].boxes[0, 0] == result.tracks["one"].boxes[0, 0] + 2


def test_a_sequence_with_a_first_box_alone_is_tracked_and_not_scored(tmp_path: Path) -> None:
    folder, out = tmp_path / "mine", tmp_path / "results"
    build(tree_of("own", "folders"), folder, ["open", "secret"], FRAMES, SIZE)
    (folder / "data.yaml").write_text("modality: thermal\n")

    def hide(name: str) -> None:
        path = folder / "test" / name / "groundtruth.txt"
        (path.parent / "absent.txt").unlink()
        path.write_text("\n".join([path.read_text().splitlines()[0], *["nan,nan,nan,nan"] * (FRAMES - 1)]) + "\n")

    hide("secret")
    with pytest.warns(DataWarning, match="first box alone and are left out: secret"):
        result = evaluate("mst-tiny-thermal", str(folder), out)
    scores = json.loads((out / "scores.json").read_text())
    assert set(scores["per_sequence"]) == {s.name for s in result.sequences} == {"open"}
    assert set(result.tracks) == {"open", "secret"}
    assert all((out / f"{name}.txt").is_file() for name in result.tracks)
    hide("open")
    (out / "scores.json").unlink()
    with pytest.raises(UserError, match=f"nothing can be scored.*results are in {out}"):
        evaluate("mst-tiny-thermal", str(folder), out)
    assert not (out / "scores.json").exists()
    ((_, files),) = export_paths([out], str(folder), tmp_path / "server", to="got10k")  # as that message says
    assert {file.parent.name for file in files} == {"open", "secret"}


def test_processes_of_torchrun_share_the_sequences(tmp_path: Path) -> None:
    miniature("lasher", "as released", tmp_path / "LasHeR", 6, SIZE)
    command = ["eval", "mst-tiny-thermal", "--on", "lasher", "--split", "all", "--data-root", str(tmp_path), "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29571", "-m", "mstrack"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *command, str(tmp_path / "two")], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("report:") == 1
    alone = mst(*command, tmp_path / "one", MST_DATA=tmp_path)
    assert alone.returncode == 0, alone.stderr
    both = [json.loads((tmp_path / folder / "scores.json").read_text()) for folder in ("one", "two")]
    assert both[0]["sequences"] == both[1]["sequences"] == 5
    assert both[1]["scores"] == pytest.approx(both[0]["scores"], abs=0.05)


def test_the_recipe_for_events_is_part_of_a_result_and_comes_from_training(tmp_path: Path) -> None:
    pytest.importorskip("dv_processing")
    miniature("visevent", "recordings", tmp_path / "VisEvent", FRAMES, SIZE)
    settings = recipe("visevent", "event", tmp_path / "run", tmp_path)
    for source in settings["data"]["train"] + settings["data"]["val"]:
        source["arguments"] = {"events": "stack3"}
    trained = train(settings)
    evaluate(trained, "visevent", tmp_path / "r", data_root=tmp_path)
    stored = json.loads((tmp_path / "r" / "run.json").read_text())
    assert stored["dataset arguments"] == {"events": "stack3"}
    with pytest.raises(UserError, match=r"dataset arguments: .*stack3.* there, .*voxel.* now"):
        evaluate(trained, "visevent", tmp_path / "r", data_root=tmp_path, arguments={"events": "voxel"})
