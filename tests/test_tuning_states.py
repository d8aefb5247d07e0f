"""What the optimizer keeps of a parameter: where the network changes between two steps, and where a state is loaded."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mstrack.errors import UserError
from mstrack.tuning import EMA, MST, FullFineTuning, SparseTuning, TunedAdamW, Tuning

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
