"""The kernels: compiled for the CPU, and Triton's (by its interpreter without a GPU), against the plain operations of torch."""

import importlib.util
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mstrack.errors import UserError
from mstrack.tuning import EMA, L2SP, MST, FullFineTuning, ScalarMomentum, TunedAdamW, Tuning, WiSE, native
from mstrack.tuning.base import kernel_rule
from mstrack.tuning.batches import TorchBatch
from mstrack.tuning.native import NativeBatch, load_library
from mstrack.tuning.ranks import SORTED, add_keys, magnitude_keys
from mstrack.tuning.rules import Rule

HAS_TRITON = importlib.util.find_spec("triton") is not None
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_compiler = pytest.mark.skipif(load_library() is None, reason="no C compiler that works: the native kernel is not here")
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed (pip install triton)")
needs_gpu = pytest.mark.skipif(not HAS_TRITON or DEVICE == "cpu", reason="no GPU, or no triton, here")
every_kernel = pytest.mark.parametrize(
    "kernel", [pytest.param("native", marks=needs_compiler), pytest.param("triton", marks=needs_triton)]
)


class Net(nn.Module):
    """Small, large, strided, empty tensors and such of one element, in two groups."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = {"large": (91, 97), "row": (120,), "other_row": (120,), "one": (1,), "scalar": (), "nothing": (0, 5)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=generator)))
        image = torch.randn(4, 3, 2, 2, generator=generator).to(memory_format=torch.channels_last)
        self.image = nn.Parameter(image)
        self.gaps = nn.Parameter(torch.randn(8, 6, generator=generator)[:, ::2])
        self.to(device)

    def set_gradients(self, step: int, dtype: torch.dtype = torch.float32, bad: float | None = None) -> None:
        """Over more than 16 octaves, with exact zeros, a function of the step; or not numbers at all."""
        generator = torch.Generator().manual_seed(100 + step)
        for parameter in self.parameters():
            shape = parameter.shape
            gradient = 1e-3 * torch.randn(shape, generator=generator) * torch.exp(3 * torch.randn(shape, generator=generator))
            gradient *= torch.rand(shape, generator=generator) < 0.9
            parameter.grad_dtype = dtype
            gradient = gradient if bad is None else torch.full(shape, bad)
            parameter.grad = gradient.to(parameter.device, dtype)


def optimizer_of(net: Net, tuning: Tuning, **how: Any) -> TunedAdamW:
    patterns = [("row", 0.3), ("*", 1.0)]
    return TunedAdamW(net.named_parameters(), tuning, lr=1e-2, weight_decay=1e-2, patterns=patterns, **how)


def pair(make: Callable[[], Tuning], kernel: str) -> tuple[Net, TunedAdamW, Net, TunedAdamW]:
    """A network under a kernel, and one under the plain operations."""
    ours, plain = Net(DEVICE if kernel == "triton" else "cpu"), Net()
    return ours, optimizer_of(ours, make(), kernel=kernel), plain, optimizer_of(plain, make(), fused=False)


def assert_near(ours: Net, plain: Net, rtol: float = 1e-5) -> None:
    """Equal but for rounding, and where each began somewhere else than where it is."""
    for (name, mine), other, start in zip(ours.named_parameters(), plain.parameters(), Net().parameters(), strict=True):
        torch.testing.assert_close(
            mine.detach().cpu(), other.detach(), rtol=rtol, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
        assert not other.numel() or not torch.equal(other, start)


RULES: dict[str, Callable[[], Tuning]] = {
    "interpolate": lambda: MST((0.2, 0.9)),
    "velocity": lambda: MST((0.2, 0.9), update="velocity"),
    "network": lambda: MST((0.2, 0.9), scope="network"),
    "inverse": lambda: MST((0.2, 0.9), order="inverse"),
    "network velocity": lambda: MST(update="velocity", scope="network"),
    "scalar velocity": lambda: ScalarMomentum(update="velocity"),
    "wise": lambda: WiSE(of=MST((0.2, 0.9))),
}


# ---------------------------------------------------------------- equality
@every_kernel
@pytest.mark.parametrize("make", RULES.values(), ids=RULES.keys())
def test_a_kernel_does_what_the_plain_operations_do(make: Callable[[], Tuning], kernel: str) -> None:
    ours, optimizer, plain, reference = pair(make, kernel)
    for step in range(4):
        for net, its in ((ours, optimizer), (plain, reference)):
            net.set_gradients(step)
            its.step()
        if step == 0:
            assert_near(ours, plain)
    assert_near(ours, plain)
    for name in ("exp_avg", "exp_avg_sq", "step", *(("rho",) if "rho" in reference.state[plain.large] else ())):
        for mine, other in zip(ours.parameters(), plain.parameters(), strict=True):
            atol = 1e-6 if name == "rho" else 1e-9  # the plain step is a difference of two parameters
            torch.testing.assert_close(optimizer.state[mine][name].cpu(), reference.state[other][name], rtol=1e-5, atol=atol)


@every_kernel
def test_a_kernel_follows_the_plain_operations_over_100_steps(kernel: str) -> None:
    ours, optimizer, plain, reference = pair(RULES["interpolate"], kernel)
    for step in range(100):
        for net, its in ((ours, optimizer), (plain, reference)):
            net.set_gradients(step)
            if kernel == "triton":  # the interpreter takes its time
                net.row.grad = net.other_row.grad = net.image.grad = None
            its.step(skip=torch.tensor(False, device=net.large.device))
    for mine, other in ((ours.large, plain.large), (ours.one, plain.one)):
        torch.testing.assert_close(mine.detach().cpu(), other.detach(), rtol=1e-5, atol=2e-6)


@every_kernel
def test_steps_that_are_skipped_leave_nothing_behind(kernel: str) -> None:
    ours, optimizer, plain, reference = pair(RULES["velocity"], kernel)
    for step, bad in enumerate((float("nan"), None, float("inf"), None, -float("inf"), None)):
        ours.set_gradients(step, bad=bad)
        optimizer.step(skip=torch.tensor(bad is not None, device=ours.large.device))
        if bad is None:
            plain.set_gradients(step)
            reference.step()
    assert_near(ours, plain)
    assert {optimizer.state[p]["step"].item() for p in ours.parameters()} == {3.0}


@every_kernel
def test_gradients_that_are_all_zero_move_nothing(kernel: str) -> None:
    net = Net(DEVICE if kernel == "triton" else "cpu")
    optimizer = TunedAdamW(net.named_parameters(), MST(), lr=1e-2, weight_decay=0, kernel=kernel)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, start in zip(net.parameters(), Net().parameters(), strict=True):
        assert torch.equal(parameter.cpu(), start)


@every_kernel
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_gradients_of_16_bits(dtype: torch.dtype, kernel: str) -> None:
    ours, optimizer, plain, reference = pair(RULES["interpolate"], kernel)
    for step in range(3):
        for net, its in ((ours, optimizer), (plain, reference)):
            net.set_gradients(step, dtype)
            its.step()
    assert_near(ours, plain)


@every_kernel
def test_gradients_anywhere_in_memory(kernel: str) -> None:
    ours, optimizer, plain, reference = pair(RULES["interpolate"], kernel)
    ours.set_gradients(0)
    plain.set_gradients(0)
    shifted = torch.cat([torch.ones(1, device=ours.large.device), ours.large.grad.flatten()])
    ours.large.grad = shifted[1:].view(91, 97)
    ours.image.grad = ours.image.grad.contiguous()
    ours.row.grad = ours.row.grad[:1].expand(120)
    plain.row.grad = plain.row.grad[:1].expand(120)
    optimizer.step()
    reference.step()
    assert_near(ours, plain)


@every_kernel
def test_a_parameter_that_waits_and_a_run_that_is_resumed(kernel: str) -> None:
    device = DEVICE if kernel == "triton" else "cpu"
    whole, first, second = Net(device), Net(device), Net(device)
    optimizers = [optimizer_of(net, RULES["velocity"](), kernel=kernel) for net in (whole, first, second)]

    def run(net: Net, optimizer: TunedAdamW, steps: range) -> None:
        for step in steps:
            net.set_gradients(step)
            if step == 1:
                net.large.grad = net.one.grad = None
            optimizer.step()

    run(whole, optimizers[0], range(4))
    run(first, optimizers[1], range(2))
    saved = io.BytesIO()
    torch.save({"net": first.state_dict(), "optimizer": optimizers[1].state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    second.load_state_dict(state["net"])
    optimizers[2].load_state_dict(state["optimizer"])
    run(second, optimizers[2], range(2, 4))
    for mine, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert optimizers[0].state[whole.large]["step"] == 3


@every_kernel
@pytest.mark.parametrize("size", [50, SORTED + 1])
def test_a_momentum_of_one_keeps_the_most_sensitive_element(size: int, kernel: str) -> None:
    net = nn.Linear(size, 1, bias=False).to(DEVICE if kernel == "triton" else "cpu")
    before = net.weight.detach().clone()
    optimizer = TunedAdamW(net.named_parameters(), MST((0.6, 1.0)), lr=1e-1, kernel=kernel)
    net.weight.grad = torch.arange(1.0, size + 1, device=before.device).view(1, size)
    net.weight.grad[0, -1] = 1e6
    optimizer.step()
    assert (net.weight[0, :-1] != before[0, :-1]).all()
    assert net.weight[0, -1] == before[0, -1]


@needs_triton
def test_histograms_that_are_made_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from mstrack.tuning import launches

    monkeypatch.setattr(launches, "MOST_BINS", 1 << 14)
    nets = [nn.ModuleList([nn.Linear(SORTED + extra, 1) for extra in (1, 5, 9)]) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    nets[0].to(DEVICE)
    for net, how in zip(nets, ({"kernel": "triton"}, {"fused": False}), strict=True):
        generator = torch.Generator().manual_seed(3)
        for parameter in net.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.device)
        TunedAdamW(net.named_parameters(), MST((0.2, 0.9)), lr=1e-2, **how).step()
    for mine, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(mine.detach().cpu(), other.detach(), rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------- counting
@every_kernel
def test_a_histogram_of_many_tensors(kernel: str) -> None:
    device = DEVICE if kernel == "triton" else "cpu"
    generator = torch.Generator().manual_seed(1)
    signals = [
        torch.randn(17_000, generator=generator) * torch.exp(5 * torch.randn(17_000, generator=generator)),
        torch.randn(150_000, generator=generator).mul_(1e-3),  # more than a Triton program counts
        torch.zeros(40),
        torch.empty(0),
        torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45, 3e38]),
        torch.randn(90, generator=generator) * (torch.rand(90, generator=generator) < 0.5),
    ]
    signals = [signal.to(device) for signal in signals]
    expected = torch.ones(1 << 16, dtype=torch.int64)
    for signal in signals:
        add_keys(expected, magnitude_keys(signal.cpu()) >> 15)
    counts = torch.ones(1 << 16, dtype=torch.int64, device=device)
    if kernel == "native":
        native.count_into(counts, signals)
    else:
        from mstrack.tuning import launches

        launches.count_into(counts, signals)
    assert torch.equal(counts.cpu(), expected)


# ---------------------------------------------------------------- the native kernel
@needs_compiler
def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, many = Net(), Net()
    before = torch.get_num_threads()
    try:
        for net, threads in ((alone, 1), (many, 3)):
            torch.set_num_threads(threads)
            optimizer = optimizer_of(net, MST(scope="network"), kernel="native")
            for step in range(3):
                net.set_gradients(step)
                optimizer.step()
    finally:
        torch.set_num_threads(before)
    for mine, other in zip(alone.parameters(), many.parameters(), strict=True):
        assert torch.equal(mine, other)


@needs_compiler
def test_without_a_pool_threads_of_python_do_the_same() -> None:
    library, signals = load_library(), [torch.randn(300) for _ in range(5)]
    found = torch.zeros(2, 1 << 16, dtype=torch.int64)
    native.count_into(found[0], signals)
    sizes, places = native.integers([300] * 5), native.addresses(signals)
    rooms = torch.zeros(3 * library.room_size(), dtype=torch.uint8)
    job = native.Job(tensors=5, counts=found[1].data_ptr(), rooms=rooms.data_ptr())
    job.sizes, job.gradients = (native.ctypes.addressof(column) for column in (sizes, places))
    native.work_in_threads(library["count"], job, 3)
    assert torch.equal(found[0], found[1])
    assert not rooms.any()


def test_without_a_compiler_everything_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build = load_library.__wrapped__
    monkeypatch.setenv("MST_CACHE", str(tmp_path / "cache"))
    for compiler in ("false", str(tmp_path / "nowhere")):
        monkeypatch.setenv("CC", compiler)
        assert build() is None
    code = (
        "import torch; from mstrack.tuning import *; net = torch.nn.Linear(100, 100);"
        "step = TunedAdamW(net.named_parameters(), MST(scope='network'), lr=1e-2).step;"
        "net(torch.ones(100)).sum().backward(); before = net.weight.detach().clone(); step();"
        "assert not torch.equal(before, net.weight);"
        "TunedAdamW(net.named_parameters(), MST(), lr=1e-2, kernel='native')"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"CC": "false"}, capture_output=True, text=True)
    assert "UserError: the kernel 'native' needs a C compiler" in done.stderr


@needs_compiler
def test_the_library_is_built_once_and_need_not_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build = load_library.__wrapped__
    monkeypatch.setenv("MST_CACHE", str(tmp_path))
    assert build() is not None
    (kept,) = (tmp_path / "native").iterdir()
    stamp = kept.stat().st_mtime_ns
    assert build() is not None
    assert kept.stat().st_mtime_ns == stamp
    damaged = tmp_path / "other" / "native" / kept.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"cut off")
    monkeypatch.setenv("MST_CACHE", str(tmp_path / "other"))
    assert build() is not None, "what is kept and does not load is built again"
    assert damaged.stat().st_size == kept.stat().st_size
    (tmp_path / "file").touch()
    monkeypatch.setenv("MST_CACHE", str(tmp_path / "file"))
    assert build() is not None


# ---------------------------------------------------------------- who takes a step
class Halved(MST):
    """A third party's method on top of ours."""

    def apply(self, chunk: Any) -> None:
        super().apply(chunk)


def test_a_rule_holds_for_what_it_was_written_for() -> None:
    assert kernel_rule(MST()) == Rule(0.8, 0.85)
    assert kernel_rule(MST(order="inverse", update="velocity")) == Rule(0.85, 0.8, velocity=True)
    assert kernel_rule(FullFineTuning()) == kernel_rule(WiSE()) == Rule()
    assert kernel_rule(WiSE(of="mst")) == Rule(0.8, 0.85)
    for method in (Halved(), EMA(), EMA(of="mst"), L2SP(of="mst"), WiSE(of=L2SP()), WiSE(of=Halved())):
        assert kernel_rule(method) is None
    for method in (MST(rank="exact"), MST(by="moment"), MST(update="released")):
        assert kernel_rule(method) is None


@needs_compiler
def test_the_kernel_for_a_device_is_found() -> None:
    net = Net()
    net.set_gradients(0)
    for tuning, kind in ((MST(), NativeBatch), (ScalarMomentum(), TorchBatch), (FullFineTuning(), TorchBatch)):
        optimizer = optimizer_of(net, tuning)
        optimizer.step()
        (batches, chunks), _ = optimizer._parts
        assert [type(batch) for batch in batches] == [kind]
        assert [chunk.sizes for chunk in chunks] == [(24,)], "what has gaps in memory goes the plain way"


def test_an_unknown_kernel_is_named() -> None:
    with pytest.raises(UserError, match=r"kernel of TunedAdamW 'nativ'.*native"):
        optimizer_of(Net(), MST(), kernel="nativ")


# ---------------------------------------------------------------- on a GPU
COMPILE = """
import triton.language as tl
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mstrack.tuning import kernels

types = {"rows": "*i64", "places": "*i32", "counts": "*i32", "skip": "*u8", "tensors": "i32", "first": "i32"}
pointers = ("factors", "table")
wanted = [
    (kernels.advance, dict(skips=True, tensor_lr=False)),
    (kernels.count, dict(kind=tl.bfloat16, aligned=True, shared=False, ptx=True)),
    (kernels.tabulate, {}),
    (kernels.step_by_table, dict(kind=tl.float32, aligned=True, skips=True, velocity=True, ranked=True, shared=False)),
    (kernels.step_by_table, dict(kind=tl.bfloat16, aligned=False, skips=False, velocity=False, ranked=True, shared=True)),
    (kernels.step_by_pairs, dict(kind=tl.float32, skips=True, velocity=False)),
    (kernels.step_by_pairs, dict(kind=tl.bfloat16, skips=False, velocity=True)),
    (kernels.count, dict(kind=tl.float32, aligned=False, shared=True, ptx=True)),
    (kernels.advance, dict(skips=False, tensor_lr=True)),
]
for kernel, constants in wanted:
    names = [name for name in kernel.arg_names if name not in constants]
    signature = {name: types.get(name, "*fp32" if name in pointers else "fp32") for name in names}
    if constants.get("tensor_lr"):
        signature["lr"] = "*fp32"
    source = ASTSource(kernel, signature | {name: "constexpr" for name in constants}, constants)
    made = compile(source, GPUTarget("cuda", 90, 32), {"num_warps": 16})
    print(kernel.__name__, "ld.global.v4" in made.asm["ptx"] or "v4.b32" in made.asm["ptx"])
"""


@needs_triton
def test_a_step_writes_its_addresses_where_a_graph_may_have_written_others() -> None:
    from mstrack.tuning.launches import _Table

    table, addresses, fixed = _Table(1, torch.device("cpu")), [[16]], [(4, 0, 0)]
    sent = table.send(addresses, fixed).clone()
    table._captured.append(sent)
    table._rows.zero_()  # as the replay of a graph does, with what it was captured with
    assert torch.equal(table.send(addresses, fixed), sent)


@needs_triton
def test_the_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "step_by_table True" in done.stdout, "four elements are read at a time"


@needs_gpu
@pytest.mark.parametrize("scope", ["tensor", "network"])
def test_a_step_can_be_captured_in_a_graph(scope: str) -> None:
    ours, plain = Net("cuda"), Net("cuda")
    optimizer, reference = (optimizer_of(net, MST(scope=scope), kernel="triton") for net in (ours, plain))
    rate = torch.tensor(1e-2, device="cuda")
    for group in optimizer.param_groups:
        group["lr"] = rate
    for net in (ours, plain):
        net.set_gradients(0)
    for _ in range(3):
        optimizer.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    captured = [parameter.grad for parameter in ours.parameters()]  # a replay reads them where they are
    for parameter in ours.parameters():
        parameter.grad = parameter.grad.clone()
    optimizer.step()
    graph.replay()
    del captured
    for group in reference.param_groups:
        group["lr"] = 1e-2
    for _ in range(5):
        reference.step()
    for mine, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)
