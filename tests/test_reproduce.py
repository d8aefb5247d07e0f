"""`mst reproduce`: the plan against the paper and the catalogue, choices, runs that go on, and one study from end to end."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from contenders import make_scored, make_truths
from layouts import miniature
from safetensors.torch import load_file

from mstrack import checkpoint, create_model
from mstrack.assembly import build_optimizer
from mstrack.compare.published import published_table
from mstrack.config import Config
from mstrack.errors import UserError
from mstrack.quickstart import ROWS, learning_rate
from mstrack.rawresults import RawResults
from mstrack.registry import resolve
from mstrack.reproduce import conduct
from mstrack.reproduce.agenda import Agenda, plan_study, sweep_runs
from mstrack.reproduce.conduct import open_study
from mstrack.reproduce.costs import measure_costs
from mstrack.reproduce.document import RESULTS, TIMES, read_records, render_document
from mstrack.reproduce.doing import StoppedError, check_settings, run_job
from mstrack.reproduce.estimate import estimate, say_duration
from mstrack.reproduce.jobs import Job, Site, foundation_job, network_of, provisional, row_job
from mstrack.reproduce.outcomes import check_lists, read_curve, read_means, read_scores
from mstrack.reproduce.plan import Foundation, Plan, Study, find_study, read_plan
from mstrack.reproduce.rates import FILE, Choice, choose, look, merge_sweeps, read_sweeps, write_sweeps
from mstrack.reproduce.running import Crew, choose_crew
from mstrack.reproduce.table import Runs, build_table, measure
from mstrack.results import Track, write_json
from mstrack.scoring import Scored, describe, score_results
from mstrack.tuning.patterns import select_parameters

PLAN = read_plan()
OURS = [key for key, row in PLAN.rows.items() if row.needs is None]
TABLES = {"table1": 1, "table2": 2, "table3": 3, "table4": 4, "table5": 5, "table6": 6, "table7": 7, "table11": 11}
SMALL: dict[str, Any] = {
    "width": 16, "depth": 4, "heads": 2, "template_size": 16, "search_size": 32, "patch": 8, "head_channels": 16,
}  # fmt: skip
ALONE = Crew(1, ["cpu"])


def quiet(text: str) -> Any:
    return lambda done, total, said: None


def small_plan(folder: Path) -> Plan:
    """The plan, with seconds in the place of minutes at scale `tiny`, and studies of two rows and of one."""
    weights = folder / "small.safetensors"
    if not weights.is_file():
        checkpoint.save(weights, create_model("ostrack-tiny", **SMALL), {})
    source = {"name": "synthetic", "arguments": {"sequences": 3, "frames": 7}}
    changes = {
        **PLAN.scales["tiny"].changes,
        "data.train": [{**source, "split": "train"}],
        "data.val": [{**source, "split": "val"}],
        "data.min_frames": 5, "data.max_gap": 6, "data.cache": 0.0,
        "train.samples": 8, "train.batch": 4, "train.val_samples": 0, "train.val_clips": 0, "run.save_every": 1,
    }  # fmt: skip
    tiny = PLAN.scales["tiny"].model_copy(
        update={
            "arguments": {"*": SMALL, "mst": {"cross_layers": [1]}},
            "foundations": {"ostrack": Foundation(weights=str(weights))},
            "changes": changes,
            "test": {"sequences": 7, "frames": 5},
            "validation": {"train.val_clips": 2, "train.val_frames": 4},
        }
    )
    both = {"full": "FFT (OSTrack)", "mst": "MST (OSTrack)"}
    drawn: Any = {"baseline": "full", "figures": ("plots", "attributes")}
    pair = Study(title="Two rows", tables=(3,), columns=("lasher",), rows=both, seeds=2, **drawn)
    course = Study(title="A course", columns=("lasher",), rows={"mst-long": None}, seeds=1, curves=True)
    rows = {**PLAN.rows, "mst-long": PLAN.rows["mst-long"].model_copy(update={"epochs": 2.0})}
    return PLAN.model_copy(
        update={
            "scales": {**PLAN.scales, "tiny": tiny},
            "studies": {**PLAN.studies, "pair": pair, "course": course},
            "rows": rows,
        }
    )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(small_plan(tmp_path), "tiny", tmp_path / "out" / "tiny")


# ---------------------------------------------------------------- the plan
@pytest.mark.parametrize(("name", "number"), TABLES.items())
def test_every_published_row_has_a_row(name: str, number: int) -> None:
    study = PLAN.studies[name]
    printed = {(row.label, row.dataset) for row in published_table(number)}
    assert printed
    assert {label for label, _ in printed} == {called for called in study.rows.values() if called is not None}
    assert {dataset for _, dataset in printed} == set(study.columns)


def test_the_help_names_every_study() -> None:
    from mstrack.cli_reproduce import reproduce

    said = get_type_hints(reproduce, include_extras=True)["study"].__metadata__[0].help
    between = {f"table{number}" for number in range(2, 7)}  # table1 ... table7
    assert set(re.findall(r"\w+\d|\w+_\w+|combined|course", said)) == set(PLAN.studies) - between


def test_table_7_has_its_costs() -> None:
    costs = {row.label: row.cost for row in published_table(7)}
    assert costs["MST (OSTrack)"] == {"params_M": 202.0, "FLOPs_G": 149.0, "FPS": 49.0}
    assert all(set(cost) == {"params_M", "FLOPs_G", "FPS"} for cost in costs.values())


@pytest.mark.parametrize("name", ["table3", "table4", "table5", "table6", "table11", "fig1", "fig3", "fig5", "fig6"])
def test_what_compares_tunings_has_its_control(name: str) -> None:
    assert any(PLAN.rows[key].scaled for key in PLAN.studies[name].rows)


@pytest.mark.parametrize("key", OURS)
@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_every_row_builds_its_network_and_trains_something(key: str, scale: str, tmp_path: Path) -> None:
    for ground in ("thermal",) if scale == "tiny" else ("fe108", "lasher"):
        job = row_job(provisional(Site(PLAN, scale, tmp_path)), key, ground, 0)
        config = job.config
        with torch.device("meta"):
            network = create_model(config.model.name, **config.model.arguments)
        assert network.modalities == 1 or config.data.modality == ("thermal" if ground != "fe108" else "event")
        patterns = None if config.tuning.parameters is None else list(config.tuning.parameters.items())
        if job.train:
            chosen = select_parameters(network.named_parameters(), lambda name: 1.0, patterns)
            names = [name for rows in chosen.trained.values() for name, _ in rows]
            assert names
            assert PLAN.rows[key].model == "ceutrack" or not any(name.startswith(("head.", "position_")) for name in names)


@pytest.mark.parametrize("key", [key for key in OURS if PLAN.rows[key].train])
def test_every_rows_tuning_is_built(key: str, tmp_path: Path) -> None:
    config = row_job(provisional(Site(PLAN, "tiny", tmp_path)), key, "thermal", 0).config
    build_optimizer(create_model(config.model.name, **config.model.arguments), config)
    real = row_job(Site(PLAN, "paper", tmp_path), key, "fe108", 0).config.tuning
    assert resolve("tunings", real.name)(**real.arguments).mean_step() > 0


def test_the_order_of_patterns_is_kept(tmp_path: Path) -> None:
    config = row_job(Site(PLAN, "paper", tmp_path), "mst", "fe108", 0).config
    assert list(config.tuning.parameters or {})[-1] == "*"
    assert (config.tuning.parameters or {})["blocks_aux.*"] == 0.5
    elsewhere = row_job(Site(PLAN, "paper", tmp_path), "mst", "lasher", 0).config
    assert "blocks_aux.*" not in (elsewhere.tuning.parameters or {})


def test_real_rows_have_the_published_recipe(tmp_path: Path) -> None:
    def config(key: str, ground: str) -> Config:
        return row_job(Site(PLAN, "paper", tmp_path, weights=Path("w")), key, ground, 0).config

    mst = config("mst", "depthtrack")
    assert (mst.train.lr, mst.train.batch, mst.train.epochs, mst.train.samples) == (1e-4, 192, 30, 80000)
    assert mst.model.weights == "w/ostrack-b256.safetensors"
    assert not mst.data.val
    assert config("control", "depthtrack").train.lr == pytest.approx(0.175e-4)
    assert (config("sdstrack", "depthtrack").train.epochs, config("sdstrack", "lasher").train.epochs) == (15, 40)
    assert config("vipt", "fe108").train.lr == 4e-4
    assert config("mst-droptrack", "lasher").model.arguments == {"drop_path": 0.1, "droptrack": True}
    assert config("ostrack", "lasher").model.arguments == {"drop_path": 0.1, "elimination": True}
    assert config("vipt-full", "lasher").model.arguments == {"drop_path": 0.1}
    smallest = {ground: config("mst", ground).data.train[0].min_size for ground in PLAN.scales["paper"].data}
    assert smallest == {"fe108": 1, "visevent": 1, "coesot": 1, "depthtrack": 2, "lasher": 2}
    for key in ("vipt", "vipt-shallow", "vipt-droptrack", "vipt-long", "sdstrack", "sdstrack-droptrack"):
        own = [config(key, ground).data.train[0].min_size for ground in ("depthtrack", "visevent", "lasher", "coesot")]
        assert own == [10, 5, 0, 1]
        assert config(key, "lasher").data.grayscale_redraw
    assert not mst.data.grayscale_redraw
    for key, row in PLAN.rows.items():
        if row.train and row.needs is None:
            jitter = config(key, "lasher").data.search_jitter
            assert (jitter.centre, jitter.scale) == ((4.5, 0.5) if row.base == "droptrack" else (3.0, 0.25)), key
    assert (mst.data.train[0].name, mst.data.train[0].split) == ("depthtrack", "train-official")


def test_published_trackers_are_loaded_where_they_were_released(tmp_path: Path) -> None:
    site = Site(PLAN, "paper", tmp_path, weights=Path("w"))
    there, elsewhere = row_job(site, "vipt", "lasher", 0), row_job(site, "vipt", "fe108", 0)
    assert (there.train, there.config.model.weights) == (False, "w/vipt-b256-thermal.safetensors")
    assert (elsewhere.train, elsewhere.config.model.weights) == (True, "w/ostrack-b256.safetensors")
    assert row_job(Site(PLAN, "tiny", tmp_path), "zero-shot", "thermal", 0).folder == tmp_path / "zero-shot-thermal"


def test_studies_share_their_runs(tmp_path: Path) -> None:
    site = provisional(Site(PLAN, "tiny", tmp_path))
    folders = {name: {job.folder for job in plan_study(site, PLAN.studies[name]).row_jobs()} for name in ("table3", "table11")}
    assert tmp_path / "mst-depth-0" in folders["table3"] & folders["table11"]
    assert len(folders["table3"] & folders["table11"]) == 1 + 3 * 3  # zero-shot; full, control and MST with three seeds


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'table3'"):
        find_study(PLAN, "tabel3")
    with pytest.raises(UserError, match="unknown row 'mts'"):
        open_study(PLAN, "table3", "synthetic", ["mts"], None, tmp_path)
    with pytest.raises(UserError, match=r"DiMP is not ours.*docs/trackers\.md"):
        open_study(PLAN, "table1", "synthetic", ["dimp"], None, tmp_path)
    with pytest.raises(UserError, match="--devices ',' names none: expected cpu"):
        choose_crew(None, ",")
    with pytest.raises(UserError, match="unknown sweep 'ful'"):
        sweep_runs(Site(PLAN, "tiny", tmp_path), ["ful"], ["thermal"])
    named = open_study(PLAN, "table3", "synthetic", ["mst", "FFT (OSTrack)", "MST"], None, tmp_path)
    assert named.rows == ["full", "mst"], "in the order of the table, each once"


# ---------------------------------------------------------------- choices
def test_sweeps_have_one_budget() -> None:
    for key in {sweep.key for sweep in PLAN.sweeps.values()}:
        assert len({len(sweep.values) for sweep in PLAN.sweeps.values() if sweep.key == key}) == 1
    for name, sweep in PLAN.sweeps.items():
        assert name in PLAN.rows[sweep.row].chosen.values()


def test_the_quickstarts_rates_are_the_committed_ones() -> None:
    rates = {row.name: [learning_rate(row, modality) for modality in ("event", "depth", "thermal")] for row in ROWS}
    assert rates["full"] == [3e-4, 3e-4, 3e-4]
    assert rates["mst"] == [2e-3, 2e-3, 2e-3]
    assert rates["default"] == [6e-4, 2e-2, 2e-3]
    assert rates["control"] == pytest.approx([3.5e-4] * 3)


def test_the_best_value_on_validation_is_chosen(tmp_path: Path) -> None:
    def line(sweep: str, value: float, seed: int, success: float, modality: str = "depth") -> dict[str, str]:
        fields = {"scale": "micro", "sweep": sweep, "modality": modality, "value": f"{value}", "seed": f"{seed}", "loss": "1"}
        return {**fields, "SR": f"{success}"}

    lines = [line("full", 1e-3, 0, 40), line("full", 1e-3, 1, 60), line("full", 1e-2, 0, 55), line("full", 1e-2, 1, 40)]
    write_sweeps(tmp_path / FILE, lines)
    assert choose(PLAN, "full", "micro", "depth", tmp_path) == 1e-3
    assert choose(PLAN, "full", "micro", "event", tmp_path) == 1e-3  # another modality stands in
    found = look("full", "micro", "event", tmp_path)
    assert found is not None
    assert (found.modality, found.runs, found.inside) == ("depth", 2, False)
    merge_sweeps(tmp_path / FILE, [line("full", 1e-2, 1, 80), line("full", 1e-2, 0, 20, "event")])
    assert len(read_sweeps(tmp_path / FILE)) == 5
    assert choose(PLAN, "full", "micro", "depth", tmp_path) == 1e-2
    with pytest.raises(UserError, match="mst reproduce sweep --only vipt"):
        choose(PLAN, "vipt", "paper", "depth", tmp_path)
    assert choose(PLAN, "vipt", "paper", "depth", tmp_path, provisional=True) == PLAN.sweeps["vipt"].values[0]


def test_an_own_sweep_on_another_modality_does_not_hide_a_committed_one(tmp_path: Path) -> None:
    line = {"scale": "tiny", "sweep": "full", "modality": "event", "value": "5", "seed": "0", "loss": "1", "SR": "90"}
    known = look("full", "tiny", "thermal")
    write_sweeps(tmp_path / FILE, [line])
    assert look("full", "tiny", "thermal", tmp_path) == known
    assert look("full", "tiny", "event", tmp_path) == Choice(5, "event", [(5, 90)], 1)


def test_a_sweep_that_nobody_has_run_comes_first(site: Site) -> None:
    plan = site.plan
    row, sweeps = plan.rows["vipt"].model_copy(update={"chosen": {"train.lr": "own"}}), plan.sweeps
    plan = plan.model_copy(update={"rows": {**plan.rows, "vipt": row}, "sweeps": {**sweeps, "own": sweeps["vipt"]}})
    site = replace(site, plan=plan)
    study = plan.studies["pair"].model_copy(update={"rows": {"vipt": None}, "baseline": None})
    agenda = plan_study(site, study)
    runs = agenda.sweeps
    assert [(run.sweep, run.modality) for run in runs] == [("own", "thermal")] * 4
    assert all(run.job.config.train.val_clips == 2 and run.job.config.train.seed == 100 for run in runs)
    conduct.conduct_sweeps(site, runs, ALONE, quiet)
    assert [float(line["value"]) for line in read_sweeps(site.out / FILE)] == [3e-4, 1e-3, 3e-3, 1e-2]
    assert not plan_study(site, study).sweeps
    rows, files = conduct.report_sweeps(site, runs, site.out.parent, site.out.parent / "all.csv", "mst reproduce sweep")
    assert rows[0][:2] == ["own", "thermal"]
    assert read_sweeps(files[-1]) == read_sweeps(site.out / FILE)
    assert "Validation, thermal" in files[1].read_text()


# ---------------------------------------------------------------- runs
def test_an_interrupted_run_goes_on_to_the_same_weights(site: Site, tmp_path: Path) -> None:
    whole = row_job(site, "full", "thermal", 0)
    run_job(whole)
    pieces = row_job(Site(site.plan, "tiny", tmp_path / "pieces"), "full", "thermal", 0)
    with pytest.raises(StoppedError):
        run_job(pieces, interrupted=lambda: True)
    assert not pieces.done
    assert (pieces.folder / "state.safetensors").is_file()
    run_job(pieces)
    first, second = (load_file(job.folder / "model.safetensors") for job in (whole, pieces))
    assert all(torch.equal(first[name], second[name]) for name in first)
    np.testing.assert_array_equal(read_scores(whole)["SR"], read_scores(pieces)["SR"])


def test_runs_of_other_settings_are_not_taken(site: Site) -> None:
    job = row_job(site, "full", "thermal", 0)
    run_job(job)
    check_settings(job)
    changed = site.plan.scales["tiny"].model_copy(update={"changes": {**site.scale.changes, "train.samples": 12}})
    other = Site(site.plan.model_copy(update={"scales": {"tiny": changed}}), "tiny", site.out)
    with pytest.raises(UserError, match=r"other settings \(train\.samples: 8 there, 12 now"):
        check_settings(row_job(other, "full", "thermal", 0))


def test_checkpoints_are_kept_and_tracked_with(site: Site) -> None:
    job = row_job(site, "mst-long", "thermal", 0)
    assert job.kept == [1, 2]
    run_job(job)
    curve = read_curve(job)
    assert [step for step, _ in curve] == [2, 4]
    assert curve[-1][1] == read_means(job)  # the last one is the model
    agenda = open_study(site.plan, "course", "synthetic", (), None, site.out.parent)
    found = conduct.report("course", agenda, site.out.parent, ALONE, "mst reproduce course", quiet)
    assert "SR on thermal over training" in found.files[2].read_text()


def test_an_rgb_tracker_is_made_where_none_is_shipped(site: Site) -> None:
    foundation = Foundation(
        recipe="ostrack-tiny", arguments={"droptrack": True}, changes={"model.arguments": SMALL, "train.epochs": 1}
    )
    scale = site.scale.model_copy(update={"foundations": {**site.scale.foundations, "droptrack": foundation}})
    with_base = Site(site.plan.model_copy(update={"scales": {"tiny": scale}}), "tiny", site.out)
    job = foundation_job(with_base, "droptrack")
    assert job is not None
    assert job.config.model.arguments == {**SMALL, "droptrack": True}
    assert row_job(with_base, "mst-droptrack", "thermal", 0).config.model.weights == str(job.folder / "model.safetensors")
    assert network_of(with_base, "mst-droptrack")[1]["droptrack"] is True
    assert foundation_job(with_base, "ostrack") is None


def test_a_sweep_makes_the_rgb_tracker_that_it_starts_from(site: Site) -> None:
    own = {key: value for key, value in site.scale.changes.items() if not key.startswith("tuning.")}
    foundation = Foundation(
        recipe="ostrack-tiny", changes={**own, "model.arguments": SMALL, "train.epochs": 1, "train.warmup": 0}
    )
    scale = site.scale.model_copy(update={"foundations": {"ostrack": foundation}, "values": {"vipt": (1e-3, 3e-3)}})
    made = Site(site.plan.model_copy(update={"scales": {"tiny": scale}}), "tiny", site.out)
    runs = conduct.open_sweeps(made, ["vipt"], ["thermal"])
    text = " ".join(conduct.announce_sweeps(made, runs, ALONE))
    assert "2 runs, 0 of them done. 1 RGB tracker(s) to start from come first." in text
    conduct.conduct_sweeps(made, runs, ALONE, quiet)
    assert (site.out / "foundation-ostrack" / "model.safetensors").is_file()
    assert all(run.job.done for run in runs)


def test_costs_are_measured_once_for_each_network(site: Site, tmp_path: Path) -> None:
    paper = PLAN.scales["paper"].model_copy(update={"size": "tiny", "arguments": {"*": SMALL, "mst": {"cross_layers": [1]}}})
    small = Site(site.plan.model_copy(update={"scales": {**site.plan.scales, "paper": paper}}), "tiny", site.out)
    found = measure_costs(small, ["mst", "vipt", "vipt-mst"], tmp_path, "cpu")
    network = create_model("mst-tiny", **SMALL, cross_layers=[1])
    assert found["mst"].parameters == sum(p.numel() for n, p in network.named_parameters() if not n.startswith("position_"))
    assert found["mst"].operations == found["mst"].eliminated > 0
    assert found["vipt"].operations > found["vipt"].eliminated > 0
    assert found["vipt"] == found["vipt-mst"]
    assert found["mst"].network_fps > found["mst"].fps > 0
    assert measure_costs(small, ["mst"], tmp_path, "cpu")["mst"] == found["mst"]  # read: no second measurement is as fast
    assert len(json.loads((tmp_path / "costs.json").read_text())) == 2


def test_estimates(site: Site) -> None:
    jobs = [row_job(site, key, "thermal", seed) for key in ("full", "zero-shot") for seed in (0, 1)]
    found = estimate([jobs[:1], jobs[1:]], ALONE)
    assert set(found.each) == {"full-thermal-0", "full-thermal-1", "zero-shot-thermal"}
    assert found.each["full-thermal-0"] > found.each["zero-shot-thermal"] > 1
    assert found.seconds == pytest.approx(sum(found.each[job.name] for job in jobs))
    assert not found.counted
    run_job(jobs[0])
    assert estimate([jobs[:1]], ALONE).seconds == 0
    assert [say_duration(s) for s in (0.2, 40, 600, 5400, 2e6)] == [
        "1 seconds",
        "40 seconds",
        "10 minutes",
        "1.5 hours",
        "556 hours",
    ]


def test_what_a_protocol_leaves_out_of_a_mean_stays_in_intervals_and_pairs(tmp_path: Path) -> None:
    truths = make_truths()
    lost = make_scored("lost", truths, 3)  # is never on the target of the third sequence, which `matlab` then leaves out
    tracks = {**lost.tracks, truths[2].name: Track(truths[2].boxes, np.ones(len(truths[2].boxes)))}
    found = score_results(RawResults("found", tracks, ""), truths, "matlab")
    assert lost.summary.dropped["SR"] == 1
    assert found.summary.dropped["SR"] == 0

    def runs(name: str, *scored: Scored) -> Runs:
        jobs = [Job(tmp_path / f"{name}-{seed}", "tiny", ()) for seed in range(len(scored))]
        for job, one in zip(jobs, scored, strict=True):
            write_json(job.folder / "results" / "scores.json", describe(one))
        return Runs.read(jobs, [*range(len(jobs))])

    mixed, whole = runs("mixed", lost, found), runs("whole", found, found)
    assert not np.isnan(mixed.scores["SR"]).any()
    measured = measure(mixed, whole, shared=False)
    assert measured.cells["SR"].mean == pytest.approx((lost.summary["SR"] + found.summary["SR"]) / 2)
    assert measured.leaves_out
    assert not measure(whole, None, shared=False).leaves_out
    third = found.scores[truths[2].name].success.mean() * 100
    assert measured.difference is not None
    assert measured.difference.mean == pytest.approx(-third / 2 / len(truths))


# ---------------------------------------------------------------- a study
def test_a_study_from_end_to_end(site: Site) -> None:
    out = site.out.parent
    agenda = open_study(site.plan, "pair", "synthetic", (), None, out)
    said = conduct.announce("pair", agenda, ALONE)
    assert "2 row(s) on thermal: 4 runs, 0 of them done" in said[0]
    assert re.search(r"about \d+ (seconds|minutes), 1 at a time", said[1])
    conduct.conduct(agenda, ALONE, quiet)
    assert all(job.done for job in agenda.row_jobs())
    found = conduct.report("pair", agenda, out, ALONE, "mst reproduce pair", quiet)

    runs = {key: np.stack([read_scores(job)["SR"] for job in agenda.jobs_of(key, "thermal")]) for key in ("full", "mst")}
    lines = list(csv.DictReader(found.files[0].read_text().splitlines()))
    assert [(line["row"], line["dataset"], line["on"], line["seeds"]) for line in lines] == [
        ("full", "lasher", "synthetic thermal", "2"), ("mst", "lasher", "synthetic thermal", "2"),
    ]  # fmt: skip
    for line in lines:
        assert float(line["SR"]) == pytest.approx(runs[line["row"]].mean(), abs=0.006)
        assert float(line["SR_low"]) <= float(line["SR"]) <= float(line["SR_high"])
    assert [line["paper_SR"] for line in lines] == ["53.2", "56.3"]
    assert float(lines[1]["difference"]) == pytest.approx(runs["mst"].mean() - runs["full"].mean(), abs=0.006)
    half = (float(lines[1]["difference_high"]) - float(lines[1]["difference_low"])) / 2
    assert float(lines[1]["resolved"]) == pytest.approx(half, abs=0.011)

    [(title, headers, rows)] = found.tables
    assert headers == ["Row", "SR", "PR", "LasHeR", "SR, difference"]
    assert [(row[0], row[3]) for row in rows] == [("Full fine-tuning", "53.2/65.4"), ("MST", "56.3/69.5")]
    assert "embedded benchmark" in title
    text = found.files[1].read_text()
    assert "| MST |" in text
    assert "not the paper's data" in text
    page = found.files[2].read_text()
    for part in (
        "not the paper&#39;s data",
        "Success: SR",
        "By attribute",
        "Validation, thermal",
        "m in [0.8, 0.85]",
        "2 seeds",
        "56.3",
    ):
        assert part in page, part
    assert "http" not in re.sub(r"http://www.w3.org/\S+", "", page)
    assert {file.name for file in found.files[3:]} >= {"success.pdf", "precision.pdf"}

    again = open_study(site.plan, "pair", "synthetic", (), None, out)
    assert "4 runs, 4 of them done" in conduct.announce("pair", again, ALONE)[0]
    one = open_study(site.plan, "pair", "synthetic", ["mst"], 1, out)
    table = build_table("pair", one)
    assert [line.measured["thermal"].seeds for line in table.lines] == [1, 1]


STUDY = """
if __name__ == "__main__":  # and not in the processes that it starts: the plan's weights are written once
    import sys
    sys.path[:0] = {path!r}
    from mstrack.reproduce import plan
    from test_reproduce import small_plan
    from pathlib import Path
    small = small_plan(Path({folder!r}))
    plan.read_plan = lambda: small
    from mstrack.cli import main
    main()
"""


def test_ctrl_c_stops_the_processes_and_the_same_command_goes_on(tmp_path: Path) -> None:
    script, out = tmp_path / "study.py", tmp_path / "out"
    script.write_text(STUDY.format(path=[str(Path(__file__).parent)], folder=str(tmp_path)))
    start = [sys.executable, str(script), "reproduce", "pair"]
    command = [*start, "--seeds", "1", "--devices", "cpu", "--out", str(out), "--jobs"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen([*command, "2"], **pipes, start_new_session=True)
    while not list((out / "tiny").glob("*/config.yaml")):  # a run has begun
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does: all of its processes are told
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 130, errors
    assert "interrupted. What was finished is kept; the same command goes on from there." in errors
    assert "Traceback" not in errors
    done = subprocess.run([*command, "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Full fine-tuning" in done.stdout
    assert (out / "pair.html").is_file()


def test_two_commands_share_a_folder_and_no_run_is_made_twice(tmp_path: Path) -> None:
    script, out = tmp_path / "study.py", tmp_path / "out"
    script.write_text(STUDY.format(path=[str(Path(__file__).parent)], folder=str(tmp_path)))
    small_plan(tmp_path)
    start = [sys.executable, str(script), "reproduce", "pair"]
    command = [*start, "--seeds", "1", "--devices", "cpu", "--jobs", "1", "--out", str(out)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in both:
        said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "Full fine-tuning" in said
    for log in (out / "tiny").glob("*/log.jsonl"):
        steps = [line["step"] for line in map(json.loads, log.read_text().splitlines()) if "step" in line]
        assert steps == sorted(set(steps)), log
    assert not list((out / "tiny").rglob(".claims"))


def work(task: tuple[str, Path], device: str) -> str:
    """A job of a crew: `die` without a word, `wait` for ever, or come `back`."""
    what, folder = task
    (folder / f"{what}.pid").write_text(str(os.getpid()))
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    while what == "wait":
        time.sleep(0.1)
    return f"{what} {device}"


def test_a_process_that_is_killed_is_an_error(tmp_path: Path) -> None:
    with Crew(2, ["cpu"]) as crew, pytest.raises(UserError, match=r"died without a word: .* with fewer --jobs"):
        list(crew.spread(work, [("back", tmp_path), ("die", tmp_path)]))


ORPHANS = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from mstrack.reproduce.running import Crew
from test_reproduce import work
if __name__ == "__main__":
    with Crew(2, ["cpu"]) as crew:
        list(crew.spread(work, [("wait", Path({folder!r})), ("back", Path({folder!r}))]))
"""


def test_a_crew_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    script, mark = tmp_path / "crew.py", tmp_path / "wait.pid"
    script.write_text(ORPHANS.format(path=[str(Path(__file__).parent)], folder=str(tmp_path)))
    parent = subprocess.Popen([sys.executable, str(script)])
    try:
        while not (mark.is_file() and mark.read_text()):
            assert parent.poll() is None
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{mark.read_text()}/cmdline").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


# ---------------------------------------------------------------- the paper's own data
def test_what_real_data_lack_is_said_with_its_place(tmp_path: Path) -> None:
    agenda = open_study(PLAN, "table3", "real", (), None, tmp_path / "out", tmp_path / "data", tmp_path / "weights")
    small = agenda.site.scale.model_copy(update={"size": "tiny"})  # to be timed in a moment
    site = Site(
        PLAN.model_copy(update={"scales": {**PLAN.scales, "paper": small}}),
        "paper",
        tmp_path,
        tmp_path / "data",
        tmp_path / "w",
    )
    agenda = Agenda(site, agenda.study, agenda.rows, [], 1)
    miniature("lasher", next(iter(_layouts("lasher"))), tmp_path / "data" / "LasHeR")
    with pytest.raises(UserError) as caught:
        conduct.check_requirements("table3", agenda, ALONE)
    text = str(caught.value)
    assert "needs 5 thing(s) that are not there" in text
    assert "LasHeR: 3 of 979 sequences of 'train-official' are in" in text
    assert f"data set FE108: expected at {tmp_path / 'data' / 'FE108'}, with 76 sequences of 'train-official'" in text
    assert "data set DepthTrack" in text
    assert "groundtruth.txt" in text
    assert "published at github.com/xiaozai/DeT" in text
    assert f"weights ostrack-b256: expected at {tmp_path / 'w' / 'ostrack-b256.safetensors'}" in text
    assert "docs/weights.md" in text
    assert "data set LasHeR: " not in text
    assert re.search(r"18 runs, about [\d,.]+ (minutes|hours)", text)


def test_a_study_on_real_data(tmp_path: Path) -> None:
    """Table 3's full fine-tuning on a miniature of LasHeR, from a converted checkpoint, in tiny sizes."""
    miniature("lasher", next(iter(_layouts("lasher"))), tmp_path / "data" / "LasHeR", frames=8, size=(64, 96))
    paper = PLAN.scales["paper"]
    short = {"train.samples": 8, "train.batch": 4, "train.accumulate": 1, "train.epochs": 1}
    changes = {**paper.changes, **short, "data.min_frames": 5, "data.max_gap": 6, "run.workers": 0}
    scale = paper.model_copy(
        update={"size": "tiny", "arguments": {"*": SMALL, "mst": {"cross_layers": [1]}}, "changes": changes}
    )
    plan = PLAN.model_copy(update={"scales": {**PLAN.scales, "paper": scale}})
    study = PLAN.studies["table3"].model_copy(update={"columns": ("lasher",)})
    plan = plan.model_copy(update={"studies": {"table3": study}})
    checkpoint.save(tmp_path / "weights" / "ostrack-b256.safetensors", create_model("ostrack-tiny", **SMALL), {})
    agenda = open_study(plan, "table3", "real", ["full"], None, tmp_path / "out", tmp_path / "data", tmp_path / "weights")
    place = tmp_path / "data" / "LasHeR"
    with pytest.raises(UserError, match=r"needs 2 thing\(s\)(.|\n)*LasHeR: 2 of 245 sequences .* --partial"):
        conduct.check_requirements("table3", agenda, ALONE)
    conduct.check_requirements("table3", agenda, ALONE, partial=True)
    with pytest.warns(UserWarning, match="sequences are not in"):
        conduct.conduct(agenda, ALONE, quiet)
    found = conduct.report("table3", agenda, tmp_path / "out", ALONE, "mst reproduce table3 --on real", quiet)
    line = next(line for line in csv.DictReader(found.files[0].read_text().splitlines()) if line["row"] == "full")
    assert (line["on"], line["sequences"], line["seeds"], line["paper_SR"]) == ("lasher", "2", "1", "53.2")
    assert "the paper&#39;s own data sets" in found.files[2].read_text()
    assert "real data" in found.tables[0][0]
    assert f"Not the whole benchmark: LasHeR: 2 of 245 sequences of 'test' are in {place}." in found.notes
    assert "Not the whole benchmark: LasHeR: 3 of 979 sequences" in found.files[1].read_text()
    assert "Not the whole benchmark" in found.files[2].read_text()
    assert any("full-lasher-0 was tested on 2 of 245 sequences; where" in note for note in found.notes)
    conduct.conduct(agenda, ALONE, quiet)  # nothing has changed and nothing is left to do
    checkpoint.save(tmp_path / "weights" / "ostrack-b256.safetensors", create_model("ostrack-tiny", **SMALL), {"of": "others"})
    with pytest.raises(UserError, match=r"ostrack-b256\.safetensors is another file than the one that it started from"):
        conduct.conduct(agenda, ALONE, quiet)


def _layouts(dataset: str) -> list[str]:
    from mstrack.data.doctor.survey import tree_of

    return list(tree_of(dataset))


def test_a_study_that_needs_validation_is_not_for_real_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mst reproduce table3 --on real"):
        open_study(PLAN, "does_it_help", "real", (), None, tmp_path)


def test_runs_are_compared_by_seed() -> None:
    runs, others = (Runs({"SR": np.array([[10.0 * seed] for seed in seeds])}, seeds, {}) for seeds in ([0, 1, 2, 4], [4, 1, 3]))
    np.testing.assert_array_equal(runs.of_seeds(others.seeds), others.of_seeds(runs.seeds))
    np.testing.assert_array_equal(runs.of_seeds(others.seeds), [[10], [40]])
    np.testing.assert_array_equal(runs.of_seeds([7]), runs.scores["SR"])


def test_what_was_tested_on_other_sequences_is_not_compared(tmp_path: Path) -> None:
    jobs = [Job(tmp_path / name, "quickstart", ()) for name in ("whole", "part")]
    for job, names in zip(jobs, (["a", "b"], ["a"]), strict=True):
        (job.folder / "results").mkdir(parents=True)
        (job.folder / "results" / "scores.json").write_text(json.dumps({"per_sequence": dict.fromkeys(names)}))
    check_lists(jobs[:1])
    with pytest.raises(UserError, match=r"which are 2: .*part"):
        check_lists(jobs)


# ---------------------------------------------------------------- what is written about it
def test_the_page_of_docs_is_the_plan() -> None:
    docs = Path(__file__).parents[1] / "docs"
    made = render_document(PLAN, read_records(docs / RESULTS), read_records(docs / TIMES))
    assert (docs / "reproduce.md").read_text(encoding="utf-8") == made, "run `python benchmarks/reproduce_docs.py`"
    for name, study in PLAN.studies.items():
        for key in study.rows:
            assert PLAN.rows[key].needs is not None or f"`{name} --only {key}`" in made


def test_a_wrong_name_is_refused_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mstrack", "reproduce", "table33"]
    wrong = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (wrong.returncode, "Did you mean 'table3'" in wrong.stderr, "Traceback" in wrong.stderr) == (2, True, False)


def test_the_list_has_every_study() -> None:
    listed = conduct.list_studies(PLAN)
    assert [row[0] for row in listed] == list(PLAN.studies)
    assert {row[0]: row[-1] for row in listed}["table3"] == "48"
