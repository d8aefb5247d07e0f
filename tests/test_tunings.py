"""The laws of tuning, over the catalogue: a new method is tested by existing. And MST against plain loops."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mstrack import checkpoint
from mstrack.errors import UserError
from mstrack.registry import TUNINGS, resolve
from mstrack.tuning import MST, FullFineTuning, ScalarMomentum, TunedAdamW, Tuning, effective_rate
from mstrack.tuning.ranks import exact_ranks, histogram_ranks

Make = Callable[[], Tuning]
VARIANTS: dict[str, Make] = {
    "mst exact": lambda: MST(rank="exact"),
    "mst network": lambda: MST(scope="network"),
    "mst network exact": lambda: MST(scope="network", rank="exact"),
    "mst velocity": lambda: MST(update="velocity"),
    "mst velocity exact": lambda: MST(update="velocity", rank="exact"),
    "mst released": lambda: MST(update="released"),
    "momentum velocity": lambda: ScalarMomentum(0.7, update="velocity"),
}
METHODS: dict[str, Make] = {name: resolve("tunings", name) for name in TUNINGS} | VARIANTS


@pytest.fixture(params=METHODS, ids=lambda name: name.replace(" ", "-"))
def make(request: pytest.FixtureRequest) -> Make:
    return METHODS[request.param]


class Small(nn.Module):
    """Parameters of all kinds: matrices, vectors, one element, none, channels-last, and more than a sort is used for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(70, 60)
        self.conv = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
        self.norm = nn.LayerNorm(60)
        self.scale = nn.Parameter(torch.ones(1))
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.head = nn.Linear(60, 3)


def give_gradients(model: nn.Module, seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        values = torch.randn(parameter.shape, generator=generator) ** 3 * scale
        parameter.grad = torch.empty_like(parameter).copy_(values) if parameter.requires_grad else None


def run(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        give_gradients(model, step)
        optimizer.step()


def assert_equal(a: nn.Module, b: nn.Module) -> None:
    for (name, x), y in zip(a.named_parameters(), b.parameters(), strict=True):
        assert torch.equal(x, y), name


# ---------------------------------------------------------------- laws over the catalogue
def test_zero_gradient_and_zero_decay_move_nothing(make: Make) -> None:
    model = Small()
    before = copy.deepcopy(model)
    optimizer = TunedAdamW(model.named_parameters(), make(), lr=0.1, weight_decay=0.0)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    assert_equal(model, before)


def test_frozen_parameters_stay_bit_identical(make: Make) -> None:
    model = Small()
    before = copy.deepcopy(model)
    optimizer = TunedAdamW(model.named_parameters(), make(), lr=0.1, patterns=[("head.*", 0), ("*", 1.0)])
    run(model, optimizer, range(3))
    assert_equal(model.head, before.head)
    assert not torch.equal(model.first.weight, before.first.weight)
    assert not any(p.requires_grad for p in model.head.parameters())


def test_saved_and_resumed_equals_uninterrupted(make: Make, tmp_path: Path) -> None:
    whole, model = Small(), Small()
    run(whole, TunedAdamW(whole.named_parameters(), make(), lr=0.01), range(6))
    optimizer = TunedAdamW(model.named_parameters(), make(), lr=0.01)
    run(model, optimizer, range(3))
    checkpoint.save_state(tmp_path / "state.safetensors", {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    state = checkpoint.load_state(tmp_path / "state.safetensors")
    resumed = Small()
    resumed.load_state_dict(state["model"])
    again = TunedAdamW(resumed.named_parameters(), make(), lr=0.01)
    again.load_state_dict(state["optimizer"])
    run(resumed, again, range(3, 6))
    assert_equal(resumed, whole)


def test_identical_ranks_stay_identical(make: Make) -> None:
    models = [Small(), Small()]
    for model in models:
        run(model, TunedAdamW(model.named_parameters(), make(), lr=0.01), range(4))
    assert_equal(*models)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("fused", [False, True])
def test_a_skipped_step_changes_nothing(make: Make, poison: float, fused: bool) -> None:
    model, reference = Small(), Small()
    optimizer = TunedAdamW(model.named_parameters(), make(), lr=0.01, fused=fused)
    other = TunedAdamW(reference.named_parameters(), make(), lr=0.01, fused=fused)
    for step in range(5):
        give_gradients(model, step)
        if step == 2:
            model.first.weight.grad[3, 4] = poison
            optimizer.step(skip=torch.tensor(True))
            continue
        optimizer.step(skip=torch.tensor(False))
        give_gradients(reference, step)
        other.step(skip=torch.tensor(False))
    assert_equal(model, reference)


def test_a_parameter_without_gradient_stays(make: Make) -> None:
    model = Small()
    before = model.norm.weight.clone()
    optimizer = TunedAdamW(model.named_parameters(), make(), lr=0.1)
    give_gradients(model, 0)
    model.norm.weight.grad = None
    optimizer.step()
    assert torch.equal(model.norm.weight, before)


@pytest.mark.parametrize("name", [n for n in METHODS if n.startswith("mst") and "released" not in n])
def test_the_coefficient_grows_with_sensitivity(name: str) -> None:
    tuning = METHODS[name]()
    gradients = [torch.randn(50, 60) ** 3, torch.randn(200)]
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    tuning.begin_step([{"params": parameters}])
    for gradient in gradients:
        momentum = tuning.coefficient(gradient).flatten()[gradient.flatten().square().argsort()]
        assert (momentum.diff() >= 0).all()
        assert 0.8 <= momentum.min() <= momentum.max() <= 0.85 + 1e-6


# ---------------------------------------------------------------- AdamW itself
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("tuning", [FullFineTuning, lambda: MST(momentum=(0, 0)), lambda: ScalarMomentum(0.0)])
def test_the_identity_is_adamw_bit_for_bit(tuning: Make, fused: bool) -> None:
    model, reference = Small(), Small()
    ours = TunedAdamW(model.named_parameters(), tuning(), lr=3e-3, weight_decay=0.1, fused=fused)
    theirs = torch.optim.AdamW(reference.parameters(), lr=3e-3, weight_decay=0.1, foreach=not fused, fused=fused)
    run(model, ours, range(20))
    run(reference, theirs, range(20))
    assert_equal(model, reference)


def test_scalar_momentum_is_a_smaller_learning_rate() -> None:
    model, reference = Small(), Small()
    run(model, TunedAdamW(model.named_parameters(), ScalarMomentum(0.8), lr=1e-2), range(10))
    run(reference, TunedAdamW(reference.named_parameters(), FullFineTuning(), lr=2e-3), range(10))
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_groups_have_their_rates() -> None:
    model, start = Small(), Small()
    optimizer = TunedAdamW(
        model.named_parameters(), FullFineTuning(), lr=1e-2, weight_decay=0, patterns=[("head.*", 0.1), ("*", 1)]
    )
    run(model, optimizer, range(1))
    step = {
        n: (p - q).abs().max().item()
        for (n, p), q in zip(model.named_parameters(), start.parameters(), strict=True)
        if p.numel()
    }
    assert step["head.weight"] == pytest.approx(1e-3, rel=1e-3)
    assert step["first.weight"] == pytest.approx(1e-2, rel=1e-3)


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_in_another_memory_order_is_the_same_gradient(fused: bool) -> None:
    """torch's own fused kernel for the CPU mixes up the elements there."""
    model, reference = Small(), Small()
    for network, layout in ((model, torch.contiguous_format), (reference, torch.channels_last)):
        optimizer = TunedAdamW(network.named_parameters(), MST(), lr=1e-2, fused=fused)
        for step in range(3):
            give_gradients(network, step)
            network.conv.weight.grad = network.conv.weight.grad.contiguous(memory_format=layout)
            optimizer.step()
    assert_equal(model, reference)


# ---------------------------------------------------------------- MST against plain loops
def plain_ranks(values: list[float]) -> list[float]:
    """The definition: position among the squares, ties in the middle, 0.5 for one."""
    squares = [v * v for v in values]
    if len(squares) == 1:
        return [0.5]
    below = [sum(o < s for o in squares) for s in squares]
    equal = [sum(o == s for o in squares) for s in squares]
    return [(b + (e - 1) / 2) / (len(squares) - 1) for b, e in zip(below, equal, strict=True)]


def plain_step(state: dict[str, Any], theta: list[float], gradient: list[float], settings: dict[str, Any]) -> list[float]:
    """One step of AdamW and MST, element by element, in Python floats."""
    first, second = settings["betas"]
    state["t"] = state.get("t", 0) + 1
    a, b = settings["momentum"]
    moved = []
    for i, (x, g, r) in enumerate(zip(theta, gradient, plain_ranks(gradient), strict=True)):
        m1 = first * state.get(("m", i), 0.0) + (1 - first) * g
        m2 = second * state.get(("v", i), 0.0) + (1 - second) * g * g
        state["m", i], state["v", i] = m1, m2
        adam = (m1 / (1 - first ** state["t"])) / ((m2 / (1 - second ** state["t"])) ** 0.5 + 1e-8)
        delta = -settings["lr"] * (adam + settings["weight_decay"] * x)
        m = a + (b - a) * r
        if settings["update"] == "interpolate":
            moved.append(m * x + (1 - m) * (x + delta))
        else:
            state["rho", i] = m * state.get(("rho", i), 0.0) + (1 - m) * delta
            moved.append(x + state["rho", i])
    return moved


@pytest.mark.parametrize("rank", ["exact", "histogram"])
@pytest.mark.parametrize("update", ["interpolate", "velocity"])
def test_mst_is_its_definition(update: str, rank: str) -> None:
    rng = np.random.default_rng(0)
    settings = {"lr": 0.01, "weight_decay": 0.05, "update": update, "momentum": (0.6, 0.95)}
    settings["betas"] = (0.0, 0.999) if update == "velocity" else (0.9, 0.999)
    parameter = nn.Parameter(torch.tensor(rng.normal(size=40), dtype=torch.float64))
    tuning = MST(momentum=(0.6, 0.95), update=update, rank=rank)  # type: ignore[arg-type]
    optimizer = TunedAdamW([("p", parameter)], tuning, lr=0.01, weight_decay=0.05)
    theta, state = parameter.detach().tolist(), {}
    for _ in range(20):
        gradient = (rng.normal(size=40) * rng.integers(0, 2, 40)).astype(np.float32).tolist()
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        theta = plain_step(state, theta, gradient, settings)
        np.testing.assert_allclose(parameter.detach().numpy(), theta, atol=2e-7)


def test_network_scope_ranks_all_tensors_together() -> None:
    gradients = {"a": torch.tensor([0.1, 5.0, 0.0]), "b": torch.tensor([[2.0, 0.5]])}
    parameters = {name: nn.Parameter(torch.zeros_like(g)) for name, g in gradients.items()}
    for name, parameter in parameters.items():
        parameter.grad = gradients[name]
    for rank in ("exact", "histogram"):
        tuning = MST(momentum=(0, 1), scope="network", rank=rank)  # type: ignore[arg-type]
        tuning.begin_step([{"params": list(parameters.values())}])
        want = plain_ranks([0.1, 5.0, 0.0, 2.0, 0.5])
        got = [*tuning.coefficient(gradients["a"]).tolist(), *tuning.coefficient(gradients["b"]).flatten().tolist()]
        assert got == pytest.approx(want, abs=1e-6)


DISTRIBUTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "heavy tails": lambda x: x**5,
    "log-normal": lambda x: torch.exp(4 * x) * torch.sign(x),
    "half zeros": lambda x: x.clamp(min=0),
    "uniform": lambda x: torch.special.ndtr(x) - 0.5,
    "tiny": lambda x: x * 1e-20,
    "huge": lambda x: x * 1e10,
    "next to underflow": lambda x: x * 1e-30,
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("size", [256, 300, 2049, 5000, 100_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_histogram_ranks_are_near_the_exact_ones(name: str, size: int, dtype: torch.dtype) -> None:
    gradient = DISTRIBUTIONS[name](torch.randn(size, generator=torch.Generator().manual_seed(size))).to(dtype)
    error = (histogram_ranks(gradient) - exact_ranks(gradient)).abs()
    assert error.max() <= 0.03
    assert error.mean() <= 0.007


@pytest.mark.parametrize("size", [1, 2, 3, 17, 300])
def test_exact_ranks_are_the_definition(size: int) -> None:
    gradient = torch.randn(size).round(decimals=1)
    assert exact_ranks(gradient).tolist() == pytest.approx(plain_ranks(gradient.tolist()), abs=1e-6)


def test_ranks_do_not_depend_on_scale_or_sign() -> None:
    gradient = torch.randn(5000)
    for scale in (2.0**-60, 2.0**40, -1.0):
        assert torch.equal(histogram_ranks(gradient * scale), histogram_ranks(gradient)) or scale not in (-1.0,)
        assert (histogram_ranks(gradient * scale) - exact_ranks(gradient)).abs().max() <= 0.03
    assert histogram_ranks(torch.zeros(4096)).unique().tolist() == [0.5]
    assert histogram_ranks(torch.empty(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("scope", ["tensor", "network"])
@pytest.mark.parametrize("update", ["interpolate", "velocity"])
def test_the_fast_path_follows_the_reference(scope: str, update: str) -> None:
    """Over 30 steps, parameters that a rank error of 0.03 can at most explain."""
    models = {rank: Small() for rank in ("exact", "histogram")}
    for rank, model in models.items():
        tuning = MST(scope=scope, update=update, rank=rank)  # type: ignore[arg-type]
        run(model, TunedAdamW(model.named_parameters(), tuning, lr=1e-3), range(30))
    for a, b in zip(models["exact"].parameters(), models["histogram"].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=30 * 1e-3 * 0.05 * 0.03 * 3)


def test_bf16_parameters_train() -> None:
    model = Small().to(torch.bfloat16)
    run(model, TunedAdamW(model.named_parameters(), MST(), lr=1e-2), range(3))
    assert all(torch.isfinite(p).all() for p in model.parameters())


# ---------------------------------------------------------------- what is refused, and the control
def test_velocity_refuses_a_first_beta() -> None:
    parameters = [("p", nn.Parameter(torch.ones(3)))]
    with pytest.raises(ValueError, match="momentum twice"):
        TunedAdamW(parameters, MST(update="velocity"), lr=0.1, betas=(0.9, 0.999))
    optimizer = TunedAdamW(parameters, MST(update="velocity"), lr=0.1)
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.999)
    assert TunedAdamW(parameters, MST(), lr=0.1).param_groups[0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize(
    "arguments",
    [
        {"scope": "layer"},
        {"update": "released", "scope": "network"},
        {"momentum": (0.9, 0.8)},
        {"momentum": (0, 2)},
        {"rank": "x"},
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        MST(**arguments)


def test_uncovered_names_are_listed() -> None:
    with pytest.raises(UserError, match=r"scale, norm\.weight, norm\.bias"):
        TunedAdamW(
            Small().named_parameters(), MST(), lr=0.1, patterns=[("head.*", 0), ("first.*", 1), ("conv.*", 1), ("empty", 1)]
        )
    with pytest.raises(UserError, match="nothing trains"):
        TunedAdamW(Small().named_parameters(), MST(), lr=0.1, patterns=[("*", 0)])


def test_the_control_has_the_mean_rate() -> None:
    assert effective_rate(MST()) == pytest.approx(0.175)
    assert effective_rate(ScalarMomentum(0.8)) == pytest.approx(0.2)
    assert effective_rate(FullFineTuning()) == 1
    gradient = torch.randn(10_000)
    assert (1 - MST().coefficient(gradient)).mean().item() == pytest.approx(effective_rate(MST()), abs=1e-4)
