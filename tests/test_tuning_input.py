"""What the tuning says of wrong input, and the pattern table."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from mstrack.errors import UserError
from mstrack.tuning import EMA, MST, FullFineTuning, ScalarMomentum, TunedAdamW, Tuning, effective_rate
from mstrack.tuning.coefficients import Coefficients


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def test_an_uncovered_name_is_an_error_that_lists_all() -> None:
    with pytest.raises(UserError, match=r"2 parameters match no pattern: 1\.weight, 1\.bias.*'0\.\*'"):
        TunedAdamW(network().named_parameters(), FullFineTuning(), lr=1e-3, patterns=[("0.*", 1.0)])


def test_the_first_pattern_that_matches_counts() -> None:
    net = network()
    optimizer = TunedAdamW(
        net.named_parameters(), FullFineTuning(), lr=1e-3, patterns=[("*.bias", None), ("1.*", 0.5), ("*", 1.0)]
    )
    assert {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]} == {
        "0.weight": 1e-3,
        "1.weight": 5e-4,
    }
    assert optimizer.frozen == ["0.bias", "1.bias"]
    assert [p.requires_grad for p in net.parameters()] == [True, False, True, False]


def test_without_patterns_what_requires_a_gradient_trains_at_the_given_rate() -> None:
    net = network()
    net[0].requires_grad_(False)
    optimizer = TunedAdamW(net.named_parameters(), FullFineTuning(), lr=1e-3)
    assert optimizer.frozen == ["0.weight", "0.bias"]
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3]


def test_a_pattern_can_train_what_was_frozen() -> None:
    net = network().requires_grad_(False)
    assert TunedAdamW(net.named_parameters(), FullFineTuning(), lr=1e-3, patterns=[("*", 1.0)]).frozen == []
    assert all(p.requires_grad for p in net.parameters())


def test_a_method_selects_for_itself() -> None:
    class BiasOnly(Tuning):
        prepared: tuple[str, ...] = ()

        def select(self, name: str) -> float:
            return 2.0 if name.endswith("bias") else 0.0

        def prepare(self, parameters: object) -> None:
            self.prepared = tuple(parameters)

    tuning = BiasOnly()
    optimizer = TunedAdamW(network().named_parameters(), tuning, lr=1e-3, patterns=[("0.*", 0.5), ("*", 1.0)])
    assert optimizer.frozen == ["0.weight", "1.weight"]
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 2e-3]
    assert tuning.prepared == ("0.bias", "1.bias")


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(UserError, match="nothing trains"):
        TunedAdamW(network().named_parameters(), FullFineTuning(), lr=1e-3, patterns=[("*", 0)])


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"lr": -1.0}, "lr = -1"),
        ({"lr": float("nan")}, "lr = nan"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"eps": -1.0}, "eps"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"betas": (0.9,)}, "betas"),
        ({"patterns": [("*", -0.5)]}, "factor -0.5"),
    ],
)
def test_values_out_of_range_are_named(arguments: dict[str, object], fragment: str) -> None:
    with pytest.raises(UserError, match=fragment):
        TunedAdamW(network().named_parameters(), FullFineTuning(), **({"lr": 1e-3} | arguments))


def test_velocity_chooses_and_insists_on_a_first_beta_of_zero() -> None:
    for tuning in (MST(update="velocity"), ScalarMomentum(update="velocity")):
        assert TunedAdamW(network().named_parameters(), tuning, lr=1e-3).param_groups[0]["betas"] == (0.0, 0.999)
        assert TunedAdamW(network().named_parameters(), tuning, lr=1e-3, betas=(0, 0.9)).defaults["betas"] == (0.0, 0.9)
        with pytest.raises(ValueError, match="momentum twice"):
            TunedAdamW(network().named_parameters(), tuning, lr=1e-3, betas=(0.9, 0.999))
    for tuning in (FullFineTuning(), MST(), ScalarMomentum(), MST(update="released")):
        assert TunedAdamW(network().named_parameters(), tuning, lr=1e-3).param_groups[0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"update": "interpolated"}, "Did you mean 'interpolate'"),
        ({"scope": "tensors"}, "Did you mean 'tensor'"),
        ({"rank": "sorted"}, "histogram"),
        ({"momentum": (0.9, 0.8)}, "0 <= a <= b <= 1"),
        ({"momentum": (0.8, 1.2)}, "0 <= a <= b <= 1"),
        ({"momentum": (0.8,)}, "two numbers"),
        ({"momentum": 0.8}, "two numbers"),
        ({"update": "released", "scope": "network"}, "Leave the scope out"),
    ],
)
def test_unknown_settings_of_mst_are_named(arguments: dict[str, object], fragment: str) -> None:
    with pytest.raises(UserError, match=fragment):
        MST(**arguments)


def test_wrong_settings_of_scalar_momentum_are_named() -> None:
    with pytest.raises(UserError, match="two numbers"):
        ScalarMomentum(1.5)
    with pytest.raises(UserError, match="velocity"):
        ScalarMomentum(0.8, update="released")


@pytest.mark.parametrize("given", [lambda net: net.parameters(), lambda net: net, lambda net: dict(net.named_parameters())])
def test_parameters_without_names_are_refused(given: Callable[[nn.Module], object]) -> None:
    with pytest.raises(UserError, match=r"model\.named_parameters\(\)"):
        TunedAdamW(given(network()), FullFineTuning(), lr=1e-3)


def test_complex_parameters_are_refused() -> None:
    net = network()
    net.phase = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    with pytest.raises(UserError, match="'phase': complex"):
        TunedAdamW(net.named_parameters(), FullFineTuning(), lr=1e-3, fused=False)
    optimizer = TunedAdamW(net.named_parameters(), FullFineTuning(), lr=1e-3, patterns=[("phase", 0), ("*", 1)])
    with pytest.raises(UserError, match="'more': complex"):
        optimizer.add_param_group({"params": [("more", net.phase)]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("tuning", ["mst", MST, None])
def test_what_is_no_tuning_method_is_refused(tuning: object) -> None:
    with pytest.raises(UserError, match=r"tuning = .*such as MST\(\) or build_tuning\('mst'\)"):
        TunedAdamW(network().named_parameters(), tuning, lr=1e-3)


def test_only_a_tuning_has_an_effective_rate() -> None:
    with pytest.raises(UserError, match="tuning method"):
        effective_rate(MST)


def test_network_ranks_need_all_gradients() -> None:
    with pytest.raises(UserError, match="begin_step"):
        MST(scope="network").adjust(torch.ones(3), torch.ones(3), {})


def test_a_sparse_gradient_is_refused() -> None:
    net = nn.Embedding(5, 3, sparse=True)
    optimizer = TunedAdamW(net.named_parameters(), FullFineTuning(), lr=1e-3)
    net(torch.tensor([1])).sum().backward()
    with pytest.raises(UserError, match="sparse"):
        optimizer.step()


class Returning(Tuning):
    """What must be changed in place is returned."""

    def change_gradient(self, gradient: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:  # type: ignore[override]
        return gradient * 0


class Silent(Tuning):
    """What must be returned is changed in place."""

    def adjust(self, step: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
        step.mul_(0)  # type: ignore[return]


class Unasked(Tuning):
    """It waits for sensitivities that it does not ask for."""

    def receive(self, sensitivities: Any, states: Any) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("method", "fragment"),
    [
        (Returning, "Returning.change_gradient returned a Tensor, which would be lost"),
        (Silent, "Silent.adjust returned nothing"),
        (Unasked, "Unasked has a `receive`, which is called only where `batches` is above 0"),
        (lambda: EMA(of=Unasked()), "Unasked has a `receive`"),
    ],
)
def test_a_method_that_would_do_nothing_is_told(method: Callable[[], Tuning], fragment: str) -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(UserError, match=fragment):
        optimizer = TunedAdamW(layer.named_parameters(), method(), lr=1e-2)
        layer(torch.ones(2)).sum().backward()
        optimizer.step()


class Still(Coefficients):
    """Every element keeps all of its previous state."""

    def find(self, gradient: torch.Tensor, state: Mapping[str, Any]) -> torch.Tensor:
        return torch.ones_like(gradient)


@pytest.mark.parametrize("kernel", [None, "torch"])
def test_coefficients_of_ones_own_are_used(kernel: Any) -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    method = MST()
    method.coefficients = Still((0.8, 0.85), "tensor", "histogram", "ascending", "gradient")
    optimizer = TunedAdamW(layer.named_parameters(), method, lr=1e-2, kernel=kernel)
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    assert torch.equal(layer.weight, before)
