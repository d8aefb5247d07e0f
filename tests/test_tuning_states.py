"""What the optimizer keeps of a parameter: where the network changes between two steps, and where a state is loaded."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mstrack.errors import UserError
from mstrack.tuning import EMA, L2SP, MST, FisherL2SP, FullFineTuning, SparseTuning, TunedAdamW, Tuning

some_tunings = pytest.mark.parametrize(
    "make", [FullFineTuning, MST, EMA, lambda: MST(update="velocity")], ids=["full", "mst", "ema", "velocity"]
)


def changed_network(net: nn.Module, change: Callable[[nn.Module], Any], make: Callable[[], Tuning], **how: Any) -> TunedAdamW:
    """An optimizer after a step, its network changed, with gradients for the next one."""
    optimizer = TunedAdamW(net.named_parameters(), make(), lr=1e-2, **how)
    for _ in range(2):
        for parameter in net.parameters():
            parameter.grad = torch.linspace(-1, 1, parameter.numel()).to(parameter.dtype).view(parameter.shape)
        if not optimizer.state:
            optimizer.step()
            net.zero_grad()
            change(net)
    return optimizer


@some_tunings
def test_another_memory_order_changes_nothing(make: Callable[[], Tuning]) -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(6, 8, 3)
    plain = copy.deepcopy(net)
    changed_network(net, lambda net: net.to(memory_format=torch.channels_last), make).step()
    changed_network(plain, lambda net: None, make).step()
    assert net.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(net.weight, plain.weight)


@some_tunings
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_another_type_is_refused_unless_the_state_is_carried_over(make: Callable[[], Tuning], dtype: torch.dtype) -> None:
    net = nn.Linear(40, 30)
    optimizer = changed_network(net, lambda net: net.to(dtype), make)
    with pytest.raises(UserError, match=r"'weight' does not fit it: exp_avg .*load_state_dict\(optimizer\.state_dict\(\)\)"):
        optimizer.step()
    before = net.weight.detach().clone()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert not torch.equal(net.weight, before)
    assert optimizer.state[net.weight]["step"] == 2


@some_tunings
def test_another_shape_is_refused(make: Callable[[], Tuning]) -> None:
    def cut(net: nn.Linear) -> None:
        net.weight.data = net.weight.data[:, :20]

    optimizer = changed_network(nn.Linear(4000, 30), cut, make)
    with pytest.raises(UserError, match=r"exp_avg has the shape \(30, 4000\), the parameter \(30, 20\)"):
        optimizer.step()
    net = nn.Linear(20, 30)
    optimizer = TunedAdamW(net.named_parameters(), make(), lr=1e-2)
    net.weight.grad = torch.ones(30, 20)
    net.weight.data = torch.ones(300, 20)
    with pytest.raises(UserError, match=r"gradient of 'weight' has the shape \(30, 20\), the parameter \(300, 20\)"):
        optimizer.step()


@pytest.mark.parametrize("fused", [True, False])
def test_a_group_that_is_added_waits_for_its_gradients(fused: bool) -> None:
    net, more = nn.Linear(4, 3), nn.Linear(3, 3)
    optimizer = changed_network(net, lambda net: None, MST, fused=fused)
    optimizer.add_param_group({"params": more.named_parameters(prefix="more"), "lr": 0.1})
    start = more.weight.detach().clone()
    optimizer.step()
    assert torch.equal(more.weight, start)
    more.weight.grad = torch.ones(3, 3)
    optimizer.step()
    assert not torch.equal(more.weight, start)
    assert [optimizer.state[p]["step"].item() for p in (net.weight, more.weight)] == [3, 1]


def test_a_group_that_is_added_is_measured_and_the_others_go_on() -> None:
    net, more = nn.Linear(4, 3), nn.Linear(3, 3)
    optimizer = TunedAdamW(net.named_parameters(), SparseTuning(), lr=1e-2)
    optimizer.receive({name: torch.rand(p.shape) for name, p in net.named_parameters()})
    net.weight.grad = torch.ones(3, 4)
    optimizer.step()
    kept = optimizer.state[net.weight]["exp_avg"].clone()
    assert kept.any()
    optimizer.add_param_group({"params": more.named_parameters(prefix="more")})
    more.weight.grad = torch.ones(3, 3)
    with pytest.raises(UserError, match=r"SparseTuning needs sensitivities before the first step of more\.weight:"):
        optimizer.step()
    assert optimizer.unmeasured
    with pytest.raises(UserError, match=r"more\.weight, more\.bias are missing"):
        optimizer.receive({name: torch.rand(p.shape) for name, p in net.named_parameters()})
    optimizer.receive({name: torch.rand(p.shape) for name, p in optimizer.trained.items()})
    assert torch.equal(optimizer.state[net.weight]["exp_avg"], kept)
    optimizer.step()
    assert [optimizer.state[p]["step"].item() for p in (net.weight, more.weight)] == [2, 1]


# ---------------------------------------------------------------- loading
def saved_state(make: Callable[[], Tuning], dtype: torch.dtype = torch.float32, width: int = 20) -> dict[str, Any]:
    net = nn.Linear(width, 30, dtype=dtype)
    return changed_network(net, lambda net: None, make).state_dict()


@pytest.mark.parametrize(
    ("make", "given", "fragment"),
    [
        (EMA, MST, "needs average too"),
        (lambda: EMA(of=L2SP()), EMA, "needs anchor too"),
        (FisherL2SP, L2SP, "needs fisher too"),
        (SparseTuning, FullFineTuning, "needs mask too"),
        (lambda: MST(update="velocity"), MST, "momentum twice"),
    ],
    ids=["ema", "pull", "fisher", "sparse", "velocity"],
)
def test_a_state_of_another_method_is_refused_and_changes_nothing(
    make: Callable[[], Tuning], given: Callable[[], Tuning], fragment: str
) -> None:
    optimizer = TunedAdamW(nn.Linear(20, 30).named_parameters(), make(), lr=1e-3)
    with pytest.raises(UserError, match=fragment):
        optimizer.load_state_dict(saved_state(given))
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 1e-3


@some_tunings
def test_a_state_of_another_network_is_refused(make: Callable[[], Tuning]) -> None:
    optimizer = TunedAdamW(nn.Linear(4000, 30).named_parameters(), make(), lr=1e-3)
    with pytest.raises(UserError, match=r"'weight' does not fit it: exp_avg has the shape \(30, 20\), the parameter"):
        optimizer.load_state_dict(saved_state(make))
    other = torch.optim.Adagrad(nn.Linear(4000, 30).parameters())
    with pytest.raises(UserError, match="has no betas: expected one of TunedAdamW"):
        optimizer.load_state_dict(other.state_dict())


@pytest.mark.parametrize("make", [EMA, lambda: MST(update="released")], ids=["ema", "released"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_what_a_method_keeps_is_loaded_in_the_type_it_was_saved_in(make: Callable[[], Tuning], dtype: torch.dtype) -> None:
    saved = saved_state(make, dtype)
    optimizer = TunedAdamW(nn.Linear(20, 30, dtype=dtype).named_parameters(), make(), lr=1e-3)
    optimizer.load_state_dict(copy.deepcopy(saved))
    for index, state in enumerate(optimizer.state.values()):
        for key, value in saved["state"][index].items():
            assert state[key].dtype == value.dtype
            assert torch.equal(state[key], value)


def test_a_count_of_steps_may_be_a_number_as_old_versions_of_torch_saved_it() -> None:
    saved = saved_state(MST)
    saved["state"][0]["step"] = 7
    optimizer = TunedAdamW(nn.Linear(20, 30).named_parameters(), MST(), lr=1e-3)
    optimizer.load_state_dict(saved)
    assert torch.equal(next(iter(optimizer.state.values()))["step"], torch.tensor(7.0))


def test_velocity_refuses_betas_that_a_scheduler_sets() -> None:
    net = nn.Linear(3, 3)
    optimizer = TunedAdamW(net.named_parameters(), MST(update="velocity"), lr=1e-3)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, 10)
    net.weight.grad = torch.ones(3, 3)
    with pytest.raises(UserError, match="cycle_momentum=False"):
        optimizer.step()
