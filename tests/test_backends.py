"""The ways to run a network give what the network gives; the plain loop gives the tracker's boxes."""

import copy
import pickle
import warnings
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import mst
from devices import needs_gpu
from lively import BOX, clip_of, lively
from torch import Tensor, nn

from mstrack import create_model
from mstrack.backends import BACKENDS, Geometry, choose, open_backend
from mstrack.backends.compiled import compile_network
from mstrack.backends.graphs import Graphs
from mstrack.backends.onednn import is_supported
from mstrack.backends.precision import halve, protect
from mstrack.errors import UserError
from mstrack.following import NetworkFollower
from mstrack.inputs import Pair, cut_on_device, cut_on_host
from mstrack.lockstep import follow
from mstrack.models.blocks import Block, transform_tokens
from mstrack.models.branches import branching, side_by_side
from mstrack.models.network import Network
from mstrack.plain import PlainTracker, plain_network
from mstrack.registry import MODELS
from mstrack.tracker import Tracker, TrackerBatch

TINY = sorted(name for name in MODELS if name.endswith("-tiny"))
CPU = torch.device("cpu")


def crops(network: Network, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    template, search = (torch.randn(part.shape, generator=generator) for part in network.inputs(batch))
    return template, search


def largest_difference(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def deviation(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    return float(torch.stack([(a - b).pow(2).mean() for a, b in zip(ours, theirs, strict=True)]).sum().sqrt())


@pytest.mark.parametrize("name", TINY)
@torch.inference_mode()
def test_every_backend_is_the_network(name: str) -> None:
    network = lively(name).eval()
    inputs = crops(network)
    with torch.autocast("cpu", torch.bfloat16):
        in_halves = protect(copy.deepcopy(network), CPU)(*inputs)
    expected = network(*inputs)
    assert largest_difference(open_backend(network, "eager")(*inputs), expected) == 0
    assert largest_difference(open_backend(network, "onednn")(*inputs), expected) < 2e-5
    halved = open_backend(network, "eager", precision="bf16")(*inputs)
    assert largest_difference(halved, in_halves) == 0, "autocast, without its casts"
    assert largest_difference(halved, expected) > 1e-4, "half precision must differ for this to say anything"
    assert next(network.parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", TINY)
@torch.inference_mode()
def test_what_stays_in_float32_is_worth_it(name: str) -> None:
    """Without elimination: which tokens are dropped may change with a rounding, and much with it."""
    network = lively(name).eval()
    if getattr(network, "eliminating", ()):
        network = lively(name, elimination=False).eval()
    inputs = crops(network)
    expected = network(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        plain_autocast = network(*inputs)
    halved = open_backend(network, "eager", precision="bf16")(*inputs)
    assert deviation(halved, expected) < deviation(plain_autocast, expected)


@torch.inference_mode()
def test_half_precision_in_onednn_layout_is_as_close_as_autocast() -> None:
    network = lively("mst-tiny").eval()
    if not is_supported("bf16"):
        with pytest.raises(UserError, match="computes in bf16 only on a processor with AVX-512"):
            open_backend(network, "onednn", precision="bf16")
        return
    inputs = crops(network, 4)
    expected = network(*inputs)
    allowed = 1.5 * largest_difference(open_backend(network, "eager", precision="bf16")(*inputs), expected)
    assert largest_difference(open_backend(network, "onednn", precision="bf16")(*inputs), expected) < allowed


@pytest.mark.parametrize("can", [True, False])
def test_bf16_without_instructions_is_said_to_be_slow(can: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: can)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_backend(lively("ostrack-tiny"), "eager", "cpu", "fp32")
        assert not caught
        open_backend(lively("ostrack-tiny"), "eager", "cpu", "bf16")
    said = [str(warning.message).partition(",")[0] for warning in caught]
    assert said == ([] if can else ["bf16: this processor has no instructions for it"])


def test_half_precision_halves_linear_layers_alone() -> None:
    network = lively("mst-tiny")
    parameters = [(type(module), p.dtype) for module in halve(network, CPU).modules() for p in module.parameters(recurse=False)]
    assert {kind for kind, dtype in parameters if dtype == torch.bfloat16} == {nn.Linear}
    assert {dtype for kind, dtype in parameters if kind is not nn.Linear} == {torch.float32}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@torch.inference_mode()
def test_eager_runs_the_module_itself_and_the_others_a_copy() -> None:
    network = lively("ostrack-tiny").eval()
    inputs = crops(network)
    kinds = [("onednn", "fp32"), ("eager", "bf16"), *([("onednn", "bf16")] if is_supported("bf16") else [])]
    copies = [open_backend(network, name, precision=precision) for name, precision in kinds]
    before = [copied(*inputs) for copied in copies]
    runner = open_backend(network, "eager")
    for parameter in network.parameters():
        parameter.zero_()
    assert largest_difference(runner(*inputs), network(*inputs)) == 0
    for copied, expected in zip(copies, before, strict=True):
        assert largest_difference(copied(*inputs), expected) == 0


@torch.inference_mode()
def test_recorded_passes_come_in_powers_of_two() -> None:
    network = lively("mst-tiny").eval()
    seen: list[int] = []

    def run(template: Tensor, search: Tensor) -> tuple[Tensor, ...]:
        seen.append(len(search))
        return network(template, search)

    graphs = Graphs(run)
    for batch in (1, 3, 2, 5, 4, 3):
        inputs = crops(network, batch, seed=batch)
        assert largest_difference(graphs(*inputs), network(*inputs)) < 1e-5
    assert seen == [1, 4, 2, 8, 4, 4]


def test_a_recorded_pass_can_be_called_in_any_mode() -> None:
    network = lively("ostrack-tiny").eval()
    graphs, inputs = Graphs(network), crops(network)
    with torch.inference_mode():
        expected = [maps.clone() for maps in graphs(*inputs)]
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            found = graphs(*inputs)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
        assert not any(maps.requires_grad for maps in found)


def test_a_network_travels_to_a_worker_as_bytes() -> None:
    """Shared memory, which torch would send tensors through, is 64 MB in a container."""
    network = lively("ostrack-tiny")
    sent = ForkingPickler.dumps(NetworkFollower(network, batch=3))
    assert not any(value.is_shared() for value in network.state_dict().values())
    found = pickle.loads(sent)
    assert (found.batch, found.identify()) == (3, NetworkFollower(network).identify())


@pytest.mark.parametrize("name", ["mst-tiny", "ostrack-tiny"])
@torch.inference_mode()
def test_a_network_is_one_graph_without_waiting(name: str) -> None:
    """What CUDA graphs need, and `compiled` where a network has no plain blocks; without the compiler, which takes minutes."""
    network = lively(
        name, **({"elimination": True} if name.startswith("ostrack") else {"depth": 1, "cross_layers": (0,)})
    ).eval()
    inputs = crops(network)
    traced = torch.compile(network, fullgraph=True, dynamic=False, backend="eager")
    assert largest_difference(traced(*inputs), network(*inputs)) == 0


@pytest.mark.parametrize("name", TINY)
@torch.inference_mode()
def test_one_compiled_form_serves_all_blocks_of_a_copy(name: str) -> None:
    network = lively(name, **({"elimination": False} if hasattr(lively(name), "eliminating") else {})).eval()
    graphs: list[int] = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    run = compile_network(network, count)
    assert not graphs
    for batch in (2, 1, 2):
        inputs = crops(network, batch)
        assert largest_difference(run(*inputs), network(*inputs)) == 0
    forms = 3 if name == "mst-tiny" else 1  # tokens of a stream, of both, of a stream as a half of both
    assert len(graphs) == 2 * forms, "for each batch size"
    assert all(block.compute is transform_tokens for block in network.modules() if isinstance(block, Block))
    for parameter in network.parameters():
        parameter.mul_(0.5)
    assert largest_difference(run(*inputs), network(*inputs)) == 0, "the same weights"


def test_what_cannot_be_compiled_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, str(tmp_path / "no compiler")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    network = lively("ostrack-tiny", depth=1)
    with pytest.raises(UserError, match=r"'compiled': torch.compile cannot do it here: InvalidCxxCompiler"):
        open_backend(network, "compiled")(*crops(network))


def test_what_a_backend_says_of_itself() -> None:
    network = create_model("mst-tiny")
    network.provenance = {"note": "random"}
    runner = open_backend(network, "eager", precision="bf16")
    assert (runner.name, runner.precision, runner.device) == ("eager", "bf16", CPU)
    assert runner.geometry == Geometry(32, 64, 2.0, 4.0, 2)
    assert runner.provenance == {"note": "random"}


def test_auto_never_compiles_on_a_cpu() -> None:
    with torch.device("meta"):
        wide = create_model("ostrack-b256", depth=1)
    assert choose(wide, CPU) == "onednn"
    assert choose(wide, CPU, "bf16") == ("onednn" if is_supported("bf16") else "eager")
    assert choose(create_model("ostrack-tiny"), CPU) == "eager"
    assert choose(wide, torch.device("cuda")) == "graph"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "onxx"}, "unknown backend 'onxx'. Did you mean 'onnx'"),
        ({"precision": "fp16"}, "unknown precision 'fp16'"),
        ({"name": "graph"}, "'graph' is a CUDA graph, and this is cpu: use onednn, onnx or eager"),
        ({"name": "onnx", "precision": "bf16"}, "'onnx' computes in fp32, not in bf16"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        open_backend(create_model("ostrack-tiny"), **arguments)
    assert set(BACKENDS) >= {"eager", "onednn", "graph", "compiled", "onnx"}


@pytest.mark.parametrize("backend", ["onednn", "eager"])
@pytest.mark.parametrize("name", ["mst-tiny", "ostrack-tiny"])
def test_the_plain_loop_finds_the_boxes_of_the_tracker(name: str, backend: str) -> None:
    network, frames = lively(name), clip_of(0, 12)
    plain, tracker = PlainTracker(plain_network(network)), Tracker(network, backend=backend)
    found = []
    for start in range(0, 12, 3):
        plain.init(frames[start], BOX)
        tracker.init(frames[start], BOX)
        found += [[plain.update(frame), tracker.update(frame).box] for frame in frames[start + 1 : start + 3]]
    ours, theirs = np.array(found).swapaxes(0, 1)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert np.ptp(ours[:, :2], axis=0).max() > 5, "the boxes must move for this to say anything"


def test_the_plain_network_is_the_network_with_weights_of_its_own() -> None:
    network = lively("ostrack-tiny", elimination=True).eval()
    plain = plain_network(network)
    inputs = crops(network)
    with torch.no_grad():
        assert largest_difference(plain(*inputs), network(*inputs)) < 1e-5
        before = network(*inputs)
        for parameter in plain.parameters():
            parameter.zero_()
        assert largest_difference(network(*inputs), before) == 0


# ---------------------------------------------------------------- crops
def draw_pairs(rng: np.random.Generator, count: int) -> tuple[list[Pair], np.ndarray]:
    """Frames of sizes of their own, one in five without its second modality, and boxes in and beside them."""
    pairs, boxes = [], []
    for _ in range(count):
        height, width = rng.integers(30, 200, 2)
        rgb, aux = (rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(2))
        pairs.append((rgb, None if rng.random() < 0.2 else aux))
        w, h = np.exp(rng.uniform(np.log(2), np.log(150), 2))
        boxes.append((rng.uniform(-2 * w, width + w), rng.uniform(-2 * h, height + h), w, h))
    return pairs, np.array(boxes)


@pytest.mark.parametrize("factor", [2.0, 4.0, 5.0])
@pytest.mark.parametrize("size", [32, 128])
def test_crops_of_the_device_are_those_of_opencv_to_the_bit(factor: float, size: int) -> None:
    rng = np.random.default_rng((int(factor), size))
    for _ in range(15):
        pairs, boxes = draw_pairs(rng, 4)
        boxes[0, 2:] = (2 * size - 0.5) / factor  # exactly half: OpenCV has other code for it
        ours, theirs = (cut(pairs, boxes, factor, size, CPU) for cut in (cut_on_device, cut_on_host))
        assert torch.equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_independent_jobs_come_back_in_their_order() -> None:
    with branching():
        assert side_by_side(torch.zeros(1), lambda: "first", lambda: "second", lambda: "third") == ["first", "second", "third"]


# ---------------------------------------------------------------- on a GPU
@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [*TINY, "mst-b256"])
@torch.inference_mode()
def test_a_graph_with_branches_is_the_network(name: str, precision: str) -> None:
    network = lively(name).eval().to("cuda")
    eager, graph = (open_backend(network, backend, "cuda", precision) for backend in ("eager", "graph"))
    for seed in range(20):  # a race would show in some of many replays
        inputs = [part.to("cuda") for part in crops(network, 1 + seed % 3, seed)]
        expected = eager(*inputs)
        for _ in range(3):
            found = graph(*inputs)
        assert largest_difference(found, expected) < (1e-4 if precision == "fp32" else 0.05)


@needs_gpu
def test_crops_of_a_gpu_are_those_of_opencv_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 3, 40):
        pairs, boxes = draw_pairs(rng, count)
        ours, _ = cut_on_device(pairs, boxes, 4.0, 256, torch.device("cuda"))
        theirs, _ = cut_on_host(pairs, boxes, 4.0, 256, CPU)
        torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=1e-6)  # the crops are equal, a division may round otherwise


def test_a_tracker_with_crops_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    network, clips = lively("mst-tiny"), [clip_of(seed, 6) for seed in (1, 2)]

    def track() -> np.ndarray:
        tracker = TrackerBatch(network)
        tracker.init([frames[0] for frames in clips], [BOX, BOX])
        return np.array([tracker.update([frames[i] for frames in clips])[0] for i in range(1, 6)])

    expected = track()
    monkeypatch.setattr("mstrack.tracker.cutter_of", lambda device: cut_on_device)
    np.testing.assert_array_equal(track(), expected)


def test_eval_records_the_precision(tmp_path: Path) -> None:
    command = ["eval", "mst-tiny-thermal", "--argument", "sequences=1", "--argument", "frames=4"]
    command += ["--out", tmp_path / "out", "--device", "cpu", "--precision"]
    done = mst(*command, "bf16")
    assert done.returncode == 0, done.stderr
    assert '"precision": "bf16"' in (tmp_path / "out" / "run.json").read_text()
    again = mst(*command, "fp32")
    assert again.returncode == 2
    assert "precision: bf16 there, fp32 now" in again.stderr


def test_a_module_without_a_width_is_tracked_too() -> None:
    """A network of somebody else needs the geometry and a forward pass, no more."""

    class Own(nn.Module):
        template_size, search_size, template_factor, search_factor, modalities = 32, 64, 2.0, 4.0, 1

        def __init__(self) -> None:
            super().__init__()
            self.inner = lively("ostrack-tiny")

        def forward(self, template: Tensor, search: Tensor) -> tuple[Tensor, ...]:
            return self.inner(template, search)

    frames = clip_of(0, 3)
    tracker = Tracker(Own(), backend="auto")
    tracker.init(frames[0], BOX)
    assert np.isfinite(tracker.update(frames[1]).box).all()
    assert list(follow(Own(), [])) == []
