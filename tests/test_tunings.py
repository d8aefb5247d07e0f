"""The laws that every tuning method keeps, over the catalogue and its variants, for torch's plain and fused AdamW."""

import copy
import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from devices import needs_gpu
from torch import Tensor, nn

from mstrack.registry import TUNINGS, resolve
from mstrack.tuning import (
    EMA,
    L2SP,
    MST,
    FisherL2SP,
    FullFineTuning,
    ScalarMomentum,
    SparseTuning,
    TunedAdamW,
    Tuning,
    WiSE,
    chunks,
    effective_rate,
)
from mstrack.tuning.native import load_library


class Halved(Tuning):
    """A third party's method: one function, one tensor of state."""

    def adjust(self, step: Tensor, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        state.setdefault("seen", torch.zeros_like(gradient)).add_(gradient.abs())
        return step.mul_(0.5)


VARIANTS: dict[str, Callable[[], Tuning]] = {name: resolve("tunings", name) for name in TUNINGS} | {
    "scalar velocity": lambda: ScalarMomentum(0.8, update="velocity"),
    "mst exact": lambda: MST(rank="exact"),
    "mst network": lambda: MST(scope="network"),
    "mst network exact": lambda: MST(scope="network", rank="exact"),
    "mst velocity": lambda: MST(update="velocity"),
    "mst velocity network": lambda: MST(update="velocity", scope="network"),
    "mst constant network": lambda: MST((0.8, 0.8), scope="network", rank="exact"),
    "mst velocity exact": lambda: MST(update="velocity", rank="exact"),
    "mst released": lambda: MST(update="released"),
    "mst 0.6 to 1": lambda: MST((0.6, 1.0)),
    "mst inverse": lambda: MST((0.2, 0.9), order="inverse"),
    "mst inverse exact": lambda: MST((0.2, 0.9), order="inverse", rank="exact"),
    "mst moment": lambda: MST(by="moment"),
    "mst moment exact": lambda: MST(by="moment", rank="exact"),
    "mst moment network": lambda: MST(by="moment", scope="network"),
    "mst moment velocity": lambda: MST(by="moment", update="velocity"),
    "ema of mst": lambda: EMA(of="mst"),
    "ema of a third party": lambda: EMA(of=Halved()),
    "l2sp of mst network": lambda: L2SP(of=MST(scope="network")),
    "fisher, strong": lambda: FisherL2SP(strength=1000.0),
    "wise of ema of sparse": lambda: WiSE(of=EMA(of="sparse")),
    "sparse of srft": lambda: SparseTuning(of="srft"),
    "sparse of velocity": lambda: SparseTuning(of=MST(update="velocity")),
}
every_tuning = pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS.keys())
both_kernels = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
KERNELS: dict[str, dict[str, Any]] = {"plain": {"fused": False}, "fused": {"kernel": "torch"}, "native": {"kernel": "native"}}
needs_compiler = pytest.mark.skipif(load_library() is None, reason="no C compiler that works: the native kernel is not here")
every_kernel = pytest.mark.parametrize(
    "kernel", [pytest.param(how, id=name, marks=[needs_compiler] if name == "native" else []) for name, how in KERNELS.items()]
)


@lru_cache(maxsize=128)
def draw_gradients(step: int, spread: float, shapes: tuple[torch.Size, ...]) -> list[Tensor]:
    """Heavy-tailed, with exact zeros."""
    generator = torch.Generator().manual_seed(1000 + step)
    drawn = []
    for shape in shapes:
        gradient = torch.randn(shape, generator=generator) * 1e-3
        gradient *= torch.exp(spread * torch.randn(shape, generator=generator))
        drawn.append(gradient * (torch.rand(shape, generator=generator) < 0.9))
    return drawn


class Net(nn.Module):
    """Parameters of every kind: small, large, of equal size, strided, of one element, of none."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = {
            "blocks.0.weight": (100, 90),
            "blocks.0.bias": (120,),
            "blocks.1.weight": (100, 90),
            "blocks.1.bias": (120,),
            "blocks.2.weight": (7, 3),
            "large": (150, 100),
            "scale": (1,),
            "shift": (),
            "nothing": (0, 5),
            "head.weight": (40, 7),
        }
        for name, shape in shapes.items():
            self._add(name, torch.randn(shape, generator=generator))
        self._add("embed.weight", torch.randn(16, 3, 8, 8, generator=generator).to(memory_format=torch.channels_last))
        self._add("slice", torch.randn(40, 30, generator=generator)[:, ::2])
        self.to(dtype)

    def _add(self, name: str, value: Tensor) -> None:
        self.register_parameter(name.replace(".", "_"), nn.Parameter(value))

    def set_gradients(self, step: int, spread: float = 3.0) -> None:
        """Heavy-tailed gradients with exact zeros, a function of the step alone."""
        drawn = draw_gradients(step, spread, tuple(p.shape for p in self.parameters()))
        for parameter, gradient in zip(self.parameters(), drawn, strict=True):
            parameter.grad = gradient.to(parameter.dtype, copy=True)


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def assert_same_bits(left: list[Tensor], right: list[Tensor]) -> None:
    for a, b in zip(left, right, strict=True):
        assert torch.equal(a, b)


def run(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> nn.Module:
    for step in steps:
        net.set_gradients(step)
        optimizer.step()
    return net


def optimizer_of(net: Net, tuning: Tuning, measured: bool = True, **kwargs: Any) -> TunedAdamW:
    """AdamW under a method, with the sensitivities it asks for: squares of other gradients than those it is trained with."""
    optimizer = TunedAdamW(net.named_parameters(), tuning, **({"lr": 1e-2, "weight_decay": 1e-2} | kwargs))
    if measured and optimizer.unmeasured:
        net.set_gradients(77)
        optimizer.receive({name: p.grad.square() for name, p in optimizer.trained.items()})
        net.zero_grad()
    return optimizer


def trains(optimizer: TunedAdamW, parameter: nn.Parameter) -> bool:
    """Whether a parameter, or a part of it, trains."""
    mask = (
        optimizer.state[parameter].get("mask", torch.ones(parameter.shape)) if parameter in optimizer.state else torch.zeros(1)
    )
    return bool(mask.any())


# ---------------------------------------------------------------- laws over the catalogue
@every_kernel
@every_tuning
def test_zero_gradient_and_zero_decay_move_nothing(make: Callable[[], Tuning], kernel: dict[str, Any]) -> None:
    net = Net()
    before = weights(net)
    optimizer = optimizer_of(net, make(), weight_decay=0, **kernel)
    for _ in range(2):
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    assert_same_bits(before, weights(net))


@every_kernel
@every_tuning
def test_frozen_parameters_stay_and_the_others_move(make: Callable[[], Tuning], kernel: dict[str, Any]) -> None:
    net = Net()
    before = dict(zip(dict(net.named_parameters()), weights(net), strict=True))
    patterns = [("head*", None), ("embed*", 0), ("*", 1.0)]
    optimizer = optimizer_of(net, make(), patterns=patterns, **kernel)
    assert optimizer.frozen == ["head_weight", "embed_weight"]
    run(net, optimizer, range(3))
    for name, parameter in net.named_parameters():
        frozen = name in optimizer.frozen
        assert parameter.requires_grad is not frozen
        assert torch.equal(parameter, before[name]) is not trains(optimizer, parameter)


@every_kernel
@every_tuning
def test_saving_and_resuming_equals_no_interruption(make: Callable[[], Tuning], kernel: dict[str, Any]) -> None:
    patterns = [("blocks*", 0.5), ("*", 1.0)]
    whole = Net()
    whole_optimizer = optimizer_of(whole, make(), patterns=patterns, **kernel)
    run(whole, whole_optimizer, range(6))

    first = Net()
    optimizer = optimizer_of(first, make(), patterns=patterns, **kernel)
    run(first, optimizer, range(3))
    buffer = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    second = Net()
    second.load_state_dict(saved["model"])
    resumed = optimizer_of(second, make(), measured=False, patterns=patterns, **kernel)
    resumed.load_state_dict(saved["optimizer"])
    assert not resumed.unmeasured
    run(second, resumed, range(3, 6))
    assert_same_bits(weights(whole), weights(second))
    with whole_optimizer.evaluation_weights(), resumed.evaluation_weights():
        assert_same_bits(weights(whole), weights(second))


@every_kernel
@every_tuning
def test_two_identical_ranks_stay_identical(make: Callable[[], Tuning], kernel: dict[str, Any]) -> None:
    left, right = Net(), Net()
    run(left, optimizer_of(left, make(), **kernel), range(5))
    run(right, optimizer_of(right, make(), **kernel), range(5))
    assert_same_bits(weights(left), weights(right))


@pytest.mark.parametrize(
    "make",
    [m for n, m in VARIANTS.items() if "released" not in n and "inverse" not in n],
    ids=[n for n in VARIANTS if "released" not in n and "inverse" not in n],
)
def test_the_momentum_coefficient_is_monotone_in_sensitivity(make: Callable[[], Tuning]) -> None:
    net = Net()
    net.set_gradients(0)
    tuning = make()
    states = {p: {"exp_avg_sq": torch.zeros_like(p)} for p in net.parameters()}
    tuning.begin_step([{"params": list(net.parameters()), "betas": (0.9, 0.999)}], states)
    for parameter in net.parameters():
        gradient = parameter.grad.detach()
        state = {"exp_avg_sq": gradient.square() * (1 - 0.999)}
        kept = 1 - tuning.adjust(torch.ones_like(gradient), gradient, state).flatten()
        assert (kept[gradient.flatten().abs().argsort()].diff() >= 0).all()


@every_kernel
@every_tuning
def test_a_skipped_step_changes_nothing_at_all(make: Callable[[], Tuning], kernel: dict[str, Any]) -> None:
    straight, detour = Net(), Net()
    straight_optimizer = optimizer_of(straight, make(), **kernel)
    run(straight, straight_optimizer, range(4))
    optimizer = optimizer_of(detour, make(), **kernel)
    for step, bad in ((-1, True), (0, False), (1, False), (-2, True), (-3, True), (2, False), (3, False)):
        detour.set_gradients(max(step, 0))
        if bad:
            for value, parameter in zip((float("nan"), float("inf")), detour.parameters(), strict=False):
                parameter.grad.fill_(value)
        optimizer.step(skip=torch.tensor(bad))
    assert_same_bits(weights(straight), weights(detour))
    with straight_optimizer.evaluation_weights(), optimizer.evaluation_weights():
        assert_same_bits(weights(straight), weights(detour))


@every_tuning
def test_the_size_of_a_chunk_changes_nothing(make: Callable[[], Tuning], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = Net(), Net()
    run(whole, optimizer_of(whole, make()), range(3))
    monkeypatch.setitem(chunks.LIMITS, "cpu", 150)
    run(parts, optimizer_of(parts, make()), range(3))
    for a, b in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@every_kernel
@every_tuning
def test_a_parameter_without_a_gradient_waits(make: Callable[[], Tuning], kernel: dict[str, Any]) -> None:
    net = Net()
    optimizer = optimizer_of(net, make(), **kernel)
    for step in range(4):
        net.set_gradients(step)
        idle = step in (0, 2)
        if idle:
            net.large.grad = None
        before = net.large.detach().clone()
        optimizer.step()
        assert torch.equal(before, net.large) is idle
    assert optimizer.state[net.large]["step"] == 2
    assert optimizer.state[net.scale]["step"] == 4


@every_tuning
def test_learning_rate_schedulers_of_torch_work(make: Callable[[], Tuning]) -> None:
    net = Net()
    optimizer = optimizer_of(net, make(), patterns=[("large", 0.5), ("*", 1.0)])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step == 0 else 0.0)
    run(net, optimizer, range(1))
    moved = weights(net)
    scheduler.step()
    assert scheduler.base_lrs == [1e-2, 5e-3]
    if optimizer.param_groups[0]["betas"][0] > 0:
        run(net, optimizer, range(1, 3))
        assert_same_bits(moved, weights(net))


def test_a_scheduler_begins_at_the_rates_that_it_finds() -> None:
    optimizer = optimizer_of(Net(), FullFineTuning())
    optimizer.param_groups[0]["lr"] = 5e-4
    assert torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0).get_last_lr() == [5e-4]


@every_kernel
@pytest.mark.parametrize("make", [FullFineTuning, MST, lambda: L2SP(30.0), FisherL2SP], ids=["full", "mst", "l2sp", "fisher"])
def test_a_learning_rate_may_be_a_tensor(make: Callable[[], Tuning], kernel: dict[str, Any]) -> None:
    ours, plain = Net(), Net()
    run(ours, optimizer_of(ours, make(), lr=torch.tensor(1 / 64), **kernel), range(4))
    run(plain, optimizer_of(plain, make(), lr=1 / 64, **kernel), range(4))
    for a, b in zip(weights(ours), weights(plain), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


# ---------------------------------------------------------------- AdamW itself
class Identity(Tuning):
    """A third party's method that changes nothing."""

    def adjust(self, step: Tensor, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        return step


IDENTITIES: dict[str, Callable[[], Tuning]] = {
    "full": FullFineTuning,
    "third party": Identity,
    "mst 0 to 0": lambda: MST((0, 0)),
    "scalar 0": lambda: ScalarMomentum(0.0),
    "mst exact 0 to 0": lambda: MST((0, 0), rank="exact"),
    "mst inverse 0 to 0": lambda: MST((0, 0), order="inverse"),
    "ema": EMA,
    "wise": WiSE,
    "l2sp without strength": lambda: L2SP(0.0),
    "fisher without strength": lambda: FisherL2SP(0.0),
    "everything in sparse": lambda: SparseTuning(1.0),
}


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("make", IDENTITIES.values(), ids=IDENTITIES.keys())
def test_the_identity_is_torchs_adamw_bit_for_bit(
    make: Callable[[], Tuning], dtype: torch.dtype, kernel: dict[str, Any]
) -> None:
    fused = kernel.get("fused", True)
    ours, theirs = Net(dtype), Net(dtype)
    rows = dict(theirs.named_parameters())
    compared = [name for name in rows if not (fused and name == "slice")]  # torch's fused kernel misreads memory with gaps
    groups = [
        {"params": [p for n, p in rows.items() if n.startswith("blocks")], "lr": 1e-2 * 0.3},
        {"params": [p for n, p in rows.items() if not n.startswith("blocks") and n in compared], "lr": 1e-2},
    ]
    theirs_runs = {"fused": True} if fused else {"foreach": True if dtype is torch.bfloat16 else None}
    reference = torch.optim.AdamW(groups, weight_decay=1e-2, betas=(0.85, 0.99), eps=1e-7, **theirs_runs)
    optimizer = optimizer_of(ours, make(), betas=(0.85, 0.99), eps=1e-7, patterns=[("blocks*", 0.3), ("*", 1)], **kernel)
    for step in range(25):
        for net in (ours, theirs):
            net.set_gradients(step)
            if fused:
                for p in net.parameters():
                    p.grad = torch.empty_like(p).copy_(p.grad)
        optimizer.step()
        reference.step()
    for name, parameter in ours.named_parameters():
        if name in compared:
            assert torch.equal(parameter, rows[name])
            for key, value in reference.state[rows[name]].items():
                assert torch.equal(optimizer.state[parameter][key], value)


def test_a_state_of_torchs_adamw_can_be_continued() -> None:
    ours, theirs = Net(), Net()
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=1e-2)
    run(theirs, reference, range(3))
    ours.load_state_dict(theirs.state_dict())
    optimizer = optimizer_of(ours, FullFineTuning(), fused=False)
    state = copy.deepcopy(reference.state_dict())
    state["param_groups"] = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(state)
    assert_same_bits(weights(run(ours, optimizer, range(3, 5))), weights(run(theirs, reference, range(3, 5))))


def test_a_closure_gives_its_loss() -> None:
    net = nn.Linear(3, 1)
    optimizer = TunedAdamW(net.named_parameters(), MST(), lr=1e-2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = net(torch.ones(3)).square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(60)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("make", [EMA, MST], ids=["ema", "mst"])
def test_a_step_inside_of_what_is_compiled(make: Callable[[], Tuning]) -> None:
    ends, calls = [], []
    for compiled in (True, False):
        torch.manual_seed(0)
        net = nn.Linear(8, 8)
        optimizer = TunedAdamW(net.named_parameters(), make(), lr=1e-2)
        optimizer.register_step_post_hook(lambda *_: calls.append(1))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)

        def train(net: nn.Module = net, optimizer: TunedAdamW = optimizer) -> None:
            optimizer.zero_grad()
            net(torch.ones(8)).square().sum().backward()
            optimizer.step()

        step = torch.compile(train, backend="aot_eager") if compiled else train
        for _ in range(3):
            step()
            scheduler.step()
        ends.append(weights(net))
    assert_same_bits(*ends)
    assert len(calls) == 6


def test_a_gradient_of_another_type_or_memory_order_is_taken() -> None:
    ours, plain = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last), nn.Conv2d(4, 6, 3)
    plain.load_state_dict(ours.state_dict())
    left, right = (TunedAdamW(net.named_parameters(), MST(), lr=1e-2, fused=True) for net in (ours, plain))
    gradient = torch.randn(6, 4, 3, 3).bfloat16()
    ours.weight.grad_dtype = torch.bfloat16
    ours.weight.grad, plain.weight.grad = gradient, gradient.float()
    left.step()
    right.step()
    torch.testing.assert_close(ours.weight.contiguous(), plain.weight.contiguous(), rtol=0, atol=0)


# ---------------------------------------------------------------- the momentum update, by hand
def middle_ranks(magnitudes: list[float]) -> dict[float, float]:
    """Rank of each value, in [0, 1]: the middle of the places it takes when sorted."""
    places: dict[float, list[int]] = {}
    for place, magnitude in enumerate(sorted(magnitudes)):
        places.setdefault(magnitude, []).append(place)
    last = len(magnitudes) - 1
    return {value: (at[0] + at[-1]) / 2 / last if last else 0.5 for value, at in places.items()}


def tune_by_hand(
    net: Net, steps: int, momentum: tuple[float, float], update: str, scope: str, lr: float, decay: float
) -> list[Tensor]:
    """The update rule of the specification with plain loops over float64 numbers."""
    low, high = momentum
    beta1, beta2, eps = (0.0 if update == "velocity" else 0.9), 0.999, 1e-8
    values = [p.detach().double() for p in net.parameters()]
    means, squares, rhos = ([torch.zeros_like(v) for v in values] for _ in range(3))
    for step in range(1, steps + 1):
        net.set_gradients(step - 1)
        gradients = [p.grad.double() for p in net.parameters()]
        scopes = [torch.cat([g.flatten() for g in gradients])] if scope == "network" else gradients
        middles = [middle_ranks([abs(g) for g in gradient.flatten().tolist()]) for gradient in scopes]
        for i, gradient in enumerate(gradients):
            means[i] = beta1 * means[i] + (1 - beta1) * gradient
            squares[i] = beta2 * squares[i] + (1 - beta2) * gradient**2
            delta = (
                -lr * (means[i] / (1 - beta1**step)) / ((squares[i] / (1 - beta2**step)).sqrt() + eps) - lr * decay * values[i]
            )
            rank = middles[0 if scope == "network" else i]
            ranks = torch.tensor([rank[abs(g)] for g in gradient.flatten().tolist()], dtype=torch.float64).view(gradient.shape)
            m = low + (high - low) * ranks
            if update == "velocity":
                rhos[i] = m * rhos[i] + (1 - m) * delta
                values[i] = values[i] + rhos[i]
            else:
                values[i] = m * values[i] + (1 - m) * (values[i] + delta)
    return values


@every_kernel
@pytest.mark.parametrize("rank", ["exact", "histogram"])
@pytest.mark.parametrize("scope", ["tensor", "network"])
@pytest.mark.parametrize("update", ["interpolate", "velocity"])
def test_mst_is_the_rule_of_the_paper(update: str, scope: str, rank: str, kernel: dict[str, Any]) -> None:
    net, steps, lr = Net(), 4, 1e-2
    expected = tune_by_hand(Net(), steps, (0.2, 0.9), update, scope, lr, decay=1e-2)
    run(net, optimizer_of(net, MST((0.2, 0.9), scope=scope, update=update, rank=rank), **kernel), range(steps))
    slack = 0.0 if rank == "exact" else steps * 0.03 * 0.7 * lr * (4 if update == "velocity" else 1)
    for want, have in zip(expected, weights(net), strict=True):
        torch.testing.assert_close(have.double(), want, rtol=0, atol=2e-6 + slack)


@pytest.mark.parametrize("update", ["interpolate", "velocity"])
@pytest.mark.parametrize("scope", ["tensor", "network"])
def test_the_fast_path_follows_the_reference_over_100_steps(update: str, scope: str) -> None:
    fast, exact = Net(), Net()
    start = weights(fast)
    run(fast, optimizer_of(fast, MST(scope=scope, update=update)), range(100))
    run(exact, optimizer_of(exact, MST(scope=scope, update=update, rank="exact")), range(100))
    for a, b, origin in zip(weights(fast), weights(exact), start, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0.01 * float((b - origin).abs().max()) if b.numel() else 0)


def test_constant_momentum_is_a_smaller_learning_rate() -> None:
    scalar, plain = Net(), Net()
    run(scalar, optimizer_of(scalar, ScalarMomentum(0.8), lr=1e-2), range(20))
    run(plain, optimizer_of(plain, FullFineTuning(), lr=1e-2 * effective_rate(ScalarMomentum(0.8))), range(20))
    for a, b in zip(weights(scalar), weights(plain), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_momentum_of_one_keeps_the_most_sensitive_element() -> None:
    net = nn.Linear(50, 1, bias=False)
    before = net.weight.detach().clone()
    optimizer = TunedAdamW(net.named_parameters(), MST((0.6, 1.0)), lr=1e-1)
    net.weight.grad = torch.arange(1.0, 51.0).view(1, 50)
    optimizer.step()
    assert (net.weight[0, :49] != before[0, :49]).all()
    assert net.weight[0, 49] == before[0, 49]


def test_velocity_keeps_moving_after_the_gradient_is_gone() -> None:
    net = nn.Linear(4, 1, bias=False)
    optimizer = TunedAdamW(net.named_parameters(), MST((0.5, 0.5), update="velocity"), lr=1e-2, weight_decay=0)
    net.weight.grad = torch.ones(1, 4)
    places = [net.weight.detach().clone()]
    for _ in range(3):
        optimizer.step()
        places.append(net.weight.detach().clone())
        net.weight.grad = torch.zeros(1, 4)
    moves = torch.stack(places).diff(dim=0)
    torch.testing.assert_close(moves[1:], moves[:-1] * 0.5, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("tuning", "rate"),
    [
        (FullFineTuning(), 1.0),
        (ScalarMomentum(0.8), 0.2),
        (MST(), 0.175),
        (MST((0.6, 1.0)), 0.2),
        (MST(update="released"), 0.55),
        (MST(update="velocity"), 1.0),
    ],
)
def test_the_control_runs_at_the_mean_step(tuning: Tuning, rate: float) -> None:
    assert effective_rate(tuning) == pytest.approx(rate)


def test_the_released_rule_differs_from_ranks() -> None:
    gradient = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    step = MST(update="released").adjust(torch.ones(5000), gradient, {})
    correlation = torch.corrcoef(torch.stack([step, gradient.abs().argsort().argsort().float()]))[0, 1]
    assert abs(correlation) < 0.05


def test_released_is_what_the_released_trainer_computes(shared: Path) -> None:
    golden = {key: torch.from_numpy(value) for key, value in np.load(shared / "golden" / "momentum_rule.npz").items()}
    names = sorted({key.split("/")[1] for key in golden})
    parameters = {name: nn.Parameter(golden[f"s0/{name}/before"].clone()) for name in names}
    optimizer = TunedAdamW(parameters.items(), MST(update="released"), lr=0.01, weight_decay=1e-4)
    for step in range(3):
        for name, parameter in parameters.items():
            parameter.grad = golden[f"s{step}/{name}/grad"].clone()
            state = {"previous": golden[f"s{step}/{name}/grads_keep_before"].clone()}
            taken = optimizer.tuning.adjust(torch.ones_like(parameter), parameter.grad, state)
            assert torch.equal(taken, 1 - golden[f"s{step}/{name}/momentum"])
        optimizer.step()
        for name, parameter in parameters.items():
            torch.testing.assert_close(parameter.detach(), golden[f"s{step}/{name}/after"], rtol=1e-6, atol=1e-7)


@needs_gpu
@pytest.mark.parametrize("scope", ["tensor", "network"])
@pytest.mark.parametrize("update", ["interpolate", "velocity"])
def test_a_step_on_a_gpu_never_waits_for_it_and_agrees_with_the_cpu(update: str, scope: str) -> None:
    here, there = Net(), Net().to("cuda")
    left = optimizer_of(here, MST(scope=scope, update=update), fused=True)
    right = optimizer_of(there, MST(scope=scope, update=update))
    good, bad = torch.tensor(False, device="cuda"), torch.tensor(True, device="cuda")
    for step in range(4):
        here.set_gradients(step)
        for parameter, twin in zip(there.parameters(), here.parameters(), strict=True):
            parameter.grad = twin.grad.to("cuda")
        left.step()
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            right.step(skip=bad)
            right.step(skip=good)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(weights(here), weights(there), strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-4, atol=1e-5)
