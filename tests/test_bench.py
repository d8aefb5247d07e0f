"""`mst bench` measures what it says: every backend, one table, sums that add up, a rate from files."""

import math
import subprocess
import sys

import pytest
import torch
from lively import lively

from mstrack import bench, measuring
from mstrack.backends import open_backend
from mstrack.backends.onednn import is_supported
from mstrack.bench import Bench
from mstrack.cli_speed import bench_notes, bench_table, duration
from mstrack.errors import UserError
from mstrack.measuring import PLAIN, FileSpeed, Speed
from mstrack.plain import PlainTracker, plain_network

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def measured() -> Bench:
    return bench.bench("ostrack-tiny", ["eager", "onednn"], largest=2, seconds=0.05)


def test_every_backend_and_precision_has_a_row(measured: Bench) -> None:
    wanted = [("eager", "fp32"), ("eager", "bf16"), ("onednn", "fp32"), ("onednn", "bf16")]
    possible = wanted if is_supported("bf16") else wanted[:3]
    assert [(speed.backend, speed.precision) for speed in measured.single] == [(PLAIN, "fp32"), *possible]
    assert {speed.batch for speed in measured.single} == {1}
    assert [(speed.backend, speed.precision) for speed in measured.best] == possible
    assert {speed.batch for speed in measured.best} <= {1, 2}
    assert list(measured.left_out) == ["onednn bf16"][: len(wanted) - len(possible)]
    assert measured.fastest == max(measured.best, key=lambda speed: speed.fps)


@pytest.mark.parametrize("source", ["ostrack-tiny", "x.onnx"])
def test_what_was_asked_for_and_cannot_be_had_is_said(source: str) -> None:
    with pytest.raises(UserError, match="'onnx' computes in fp32, not in bf16"):
        bench.bench(source, ["onnx"], ["bf16"])


def test_an_onnx_file_has_one_backend() -> None:
    with pytest.raises(UserError, match=r"x\.onnx is run by ONNX Runtime: backend 'onnx' or 'auto', not 'eager'"):
        bench.bench("x.onnx", ["eager"])


def test_the_parts_add_up_to_the_total(measured: Bench) -> None:
    for speed in measured.single[1:]:
        parts = speed.crop + speed.network + speed.decode
        assert min(speed.crop, speed.network, speed.decode) > 0
        assert 0.3 * speed.total < parts < 2 * speed.total, "medians of each, so not to the last digit"
        assert speed.fps == pytest.approx(1000 / speed.total)


def test_the_table_has_ratios_to_the_plain_loop(measured: Bench) -> None:
    headers, rows = bench_table(measured)
    assert headers[-1] == "x plain"
    assert {len(row) for row in rows} == {len(headers)}
    assert rows[0][0] == "plain loop, fp32"
    assert rows[0][-1] == "1.00"
    assert float(rows[1][-1]) == pytest.approx(measured.single[1].fps / measured.single[0].fps, abs=0.01)


def test_what_lasher_would_take_is_said() -> None:
    speed = Speed("eager", "fp32", 8, 1.0, 2.0, 1.0, 4.0)
    lines = bench_notes(Bench("x", "y", [speed], [speed], FileSpeed(100.0, 125.0, 8), speed, {"onnx fp32": "not installed"}))
    assert "100.0 frames/s, 0.80 of the network alone" in lines[0]
    assert "220,703 frames, at that rate: 37 min" in lines[1]
    assert lines[2] == "left out: onnx fp32: not installed"
    assert [duration(seconds) for seconds in (5, 65, 3600, 100_000)] == ["5 s", "1 min", "1 h 00 min", "27 h 47 min"]


def test_a_batch_and_files_are_measured() -> None:
    runner = open_backend(lively("mst-tiny"), "eager")
    speed = measuring.measure_batch(runner, 3, 0.02)
    assert (speed.batch, speed.backend) == (3, "eager")
    assert speed.total > 0
    files = measuring.measure_files(runner, 2, 0.05, shortest=4)
    assert 0 < files.fps < files.network_fps


def test_without_a_plain_loop_there_is_no_ratio() -> None:
    runners = {("eager", "fp32"): open_backend(lively("ostrack-tiny"), "eager")}
    single = measuring.measure_single(None, runners, 0.01, rounds=2)
    assert [speed.backend for speed in single] == ["eager"]
    _, rows = bench_table(Bench("x", "y", single, single, FileSpeed(1, 1, 1), single[0], {}))
    assert rows[0][-1] == ""


def test_the_plain_loop_is_measured_whole() -> None:
    plain = PlainTracker(plain_network(lively("ostrack-tiny")))
    (speed,) = measuring.measure_single(plain, {}, 0.01, rounds=2)
    assert speed.total > 0
    assert math.isnan(speed.network)


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(UserError, match=r"unknown backend 'onxx'\. Did you mean 'onnx'"):
        bench.bench("ostrack-tiny", ["onxx"])
    with pytest.raises(UserError, match="unknown precision 'fp8'"):
        bench.bench("ostrack-tiny", precisions=["fp8"])
    with pytest.raises(UserError, match="'graph' is a CUDA graph, and this is cpu"):
        bench.bench("ostrack-tiny", ["graph"], ["fp32"])
    with pytest.raises(UserError, match="no checkpoint file ostrak-tiny"):
        bench.bench("ostrak-tiny")


def test_the_command_prints_one_table() -> None:
    command = [sys.executable, "-m", "mstrack", "bench", "ostrack-tiny", "--backend", "eager", "--precision", "fp32"]
    done = subprocess.run([*command, "--batch", "1", "--seconds", "0.02", "--device", "cpu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for said in (
        "ostrack-tiny on",
        "plain loop, fp32",
        "eager, fp32",
        "frames/s",
        "x plain",
        "LasHeR's test split, 220,703 frames",
    ):
        assert said in done.stdout
