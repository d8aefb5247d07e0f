"""Each method against its definition in plain float64 arithmetic, over 60 steps, and what is particular to one of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from devices import needs_gpu
from test_tunings import Halved, Net, assert_same_bits, both_kernels, optimizer_of, run, weights
from torch import Tensor, nn

from mstrack.errors import UserError
from mstrack.tuning import (
    EMA,
    L2SP,
    MST,
    SRFT,
    Around,
    FisherL2SP,
    FullFineTuning,
    ScalarMomentum,
    SensitivityOnly,
    SparseTuning,
    TunedAdamW,
    Tuning,
    WiSE,
    effective_rate,
)

STEPS, LR, DECAY = 60, 1e-2, 1e-2


def sensitivities(net: Net) -> list[Tensor]:
    """What `optimizer_of` hands to a method that measures."""
    net.set_gradients(77)
    return [p.grad.double().square() for p in net.parameters()]


def top_share(values: list[Tensor], share: float) -> list[Tensor]:
    """1 for the elements that are among the largest, by sorting them all, else 0."""
    ordered = sorted((v for value in values for v in value.flatten().tolist()), reverse=True)
    border = ordered[round(share * len(ordered)) - 1]
    return [((value >= border) & (value > 0)).double() for value in values]


def plain_ranks(values: list[Tensor], scope: str) -> list[Tensor]:
    """Middle ranks in each tensor, or in all together: how many are below, half of how many others are equal, over N - 1."""
    everything = torch.cat([value.flatten() for value in values]).sort().values
    ranks = []
    for value in values:
        ordered = everything if scope == "network" else value.flatten().sort().values
        below, upto = (torch.searchsorted(ordered, value.contiguous(), right=right) for right in (False, True))
        last = ordered.numel() - 1
        ranks.append((below + (upto - below - 1) / 2) / last if last > 0 else torch.full_like(value, 0.5))
    return ranks


def tune_by_hand(
    steps: int = STEPS,
    factor: Callable[[list[Tensor], list[Tensor]], list[Tensor]] | None = None,
    pull: float = 0.0,
    weighted: bool = False,
    share: float | None = None,
    decay: float | None = None,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Pre-trained weights, tuned weights and their moving averages; AdamW and all methods in float64."""
    net = Net()
    fisher = sensitivities(net)
    mean = sum(float(f.sum()) for f in fisher) / sum(f.numel() for f in fisher)
    strength = [pull * (f / mean if weighted else torch.ones_like(f)) for f in fisher]
    masks = top_share(fisher, share) if share is not None else [torch.ones_like(f) for f in fisher]
    anchors = [p.detach().double() for p in net.parameters()]
    values, averages = [a.clone() for a in anchors], [a.clone() for a in anchors]
    means, squares = ([torch.zeros_like(a) for a in anchors] for _ in range(2))
    for step in range(1, steps + 1):
        net.set_gradients(step - 1)
        gradients = [p.grad.double() * mask for p, mask in zip(net.parameters(), masks, strict=True)]
        for i, gradient in enumerate(gradients):
            means[i] = 0.9 * means[i] + 0.1 * gradient
            squares[i] = 0.999 * squares[i] + 0.001 * gradient**2
        kept = factor(gradients, squares) if factor else [torch.ones(())] * len(values)
        for i in range(len(values)):
            delta = (
                -LR * (means[i] / (1 - 0.9**step)) / ((squares[i] / (1 - 0.999**step)).sqrt() + 1e-8) - LR * DECAY * values[i]
            )
            delta = delta - (LR * strength[i]).clamp(max=1) * (values[i] - anchors[i])
            values[i] = values[i] + kept[i] * delta * masks[i]
            if decay is not None:
                d = min(decay, (1 + step) / (10 + step))
                averages[i] = averages[i] + (1 - d) * (values[i] - averages[i])
    return anchors, values, averages


def tune(tuning: Tuning, fused: bool, steps: int = STEPS) -> tuple[Net, TunedAdamW]:
    net = Net()
    optimizer = optimizer_of(net, tuning, lr=LR, weight_decay=DECAY, fused=fused)
    run(net, optimizer, range(steps))
    return net, optimizer


def assert_near(have: list[Tensor], want: list[Tensor], slack: float = 2e-5) -> None:
    for a, b in zip(have, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=slack)


def scaled(low: float, high: float, scope: str, by: str) -> Callable[[list[Tensor], list[Tensor]], list[Tensor]]:
    """1 - m, with m from low (least sensitive) to high."""

    def factor(gradients: list[Tensor], squares: list[Tensor]) -> list[Tensor]:
        ranked = squares if by == "moment" else [g.abs() for g in gradients]
        return [1 - (low + (high - low) * rank) for rank in plain_ranks(ranked, scope)]

    return factor


# ---------------------------------------------------------------- against the definition
@both_kernels
@pytest.mark.parametrize("strength", [0.5, 30.0])
def test_l2sp(strength: float, fused: bool) -> None:
    _, expected, _ = tune_by_hand(pull=strength)
    assert_near(weights(tune(L2SP(strength), fused)[0]), expected)


@both_kernels
@pytest.mark.parametrize("strength", [0.5, 30.0])
def test_fisher(strength: float, fused: bool) -> None:
    _, expected, _ = tune_by_hand(pull=strength, weighted=True)
    assert_near(weights(tune(FisherL2SP(strength), fused)[0]), expected)


@both_kernels
def test_srft_is_fisher_inside_the_step_that_mst_scales(fused: bool) -> None:
    of = {"name": "mst", "arguments": {"momentum": [0.2, 0.9], "rank": "exact"}}
    _, expected, _ = tune_by_hand(pull=3.0, weighted=True, factor=scaled(0.2, 0.9, "tensor", "gradient"))
    assert_near(weights(tune(SRFT(3.0, of=of), fused)[0]), expected)


@both_kernels
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_sparse(share: float, fused: bool) -> None:
    anchors, expected, _ = tune_by_hand(share=share)
    net, optimizer = tune(SparseTuning(share), fused)
    assert_near(weights(net), expected)
    masks = [optimizer.state[p]["mask"] for p in net.parameters()]
    for mask, parameter, anchor in zip(masks, net.parameters(), anchors, strict=True):
        assert torch.equal(parameter.detach().double()[mask == 0], anchor[mask == 0])
        for name in ("exp_avg", "exp_avg_sq"):
            assert not optimizer.state[parameter][name][mask == 0].any()
    moving = sum(float(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    assert moving == pytest.approx(share, abs=1e-4)


@both_kernels
@pytest.mark.parametrize("decay", [0.5, 0.97])
def test_ema(decay: float, fused: bool) -> None:
    _, trained, expected = tune_by_hand(decay=decay)
    net, optimizer = tune(EMA(decay), fused)
    assert_near(weights(net), trained)
    with optimizer.evaluation_weights():
        assert_near(weights(net), expected)


@both_kernels
def test_wise(fused: bool) -> None:
    anchors, trained, _ = tune_by_hand()
    net, optimizer = tune(WiSE([0.0, 0.3, 1.0]), fused)
    before = weights(net)
    for choice, alpha in ((None, 1.0), (0.3, 0.3), (0.0, 0.0)):
        with optimizer.evaluation_weights(choice):
            mixed = [(1 - alpha) * a + alpha * t for a, t in zip(anchors, trained, strict=True)]
            assert_near(weights(net), mixed)
            if alpha == 0:
                assert_same_bits(weights(net), weights(Net()))
        assert_same_bits(weights(net), before)


@both_kernels
def test_wise_of_ema_mixes_the_average(fused: bool) -> None:
    anchors, _, averages = tune_by_hand(decay=0.9)
    net, optimizer = tune(WiSE(0.4, of={"name": "ema", "arguments": {"decay": 0.9}}), fused)
    with optimizer.evaluation_weights():
        assert_near(weights(net), [0.6 * a + 0.4 * e for a, e in zip(anchors, averages, strict=True)])


@both_kernels
@pytest.mark.parametrize("rank", ["exact", "histogram"])
@pytest.mark.parametrize("scope", ["tensor", "network"])
@pytest.mark.parametrize(("order", "by"), [("inverse", "gradient"), ("ascending", "moment"), ("inverse", "moment")])
def test_mst_by_other_ranks(order: str, by: str, scope: str, rank: str, fused: bool) -> None:
    steps, ends = STEPS if rank == "exact" else 8, (0.2, 0.9)
    low, high = ends if order == "ascending" else ends[::-1]
    _, expected, _ = tune_by_hand(steps, factor=scaled(low, high, scope, by))
    net, _ = tune(MST(ends, scope=scope, rank=rank, order=order, by=by), fused, steps)
    slack = 2e-5 if rank == "exact" else steps * 0.03 * 0.7 * LR
    assert_near(weights(net), expected, slack)


def test_sensitivity_only_stops_the_most_sensitive_and_has_the_mean_step_of_momentum() -> None:
    assert effective_rate(SensitivityOnly()) == pytest.approx(effective_rate(ScalarMomentum(0.8)))
    _, expected, _ = tune_by_hand(20, factor=scaled(0.6, 1.0, "tensor", "gradient"))
    assert_near(weights(tune(SensitivityOnly(rank="exact"), False, 20)[0]), expected)


# ---------------------------------------------------------------- laws of some
def test_pulling_under_a_constant_momentum_is_pulling_at_a_smaller_rate() -> None:
    inside, outside = Net(), Net()
    run(inside, optimizer_of(inside, L2SP(5.0, of=ScalarMomentum(0.8)), lr=LR), range(STEPS))
    run(outside, optimizer_of(outside, L2SP(5.0), lr=LR * 0.2), range(STEPS))
    for a, b in zip(weights(inside), weights(outside), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_no_pull_overshoots() -> None:
    net, optimizer = tune(FisherL2SP(1e9), fused=False)
    for parameter, origin in zip(net.parameters(), weights(Net()), strict=True):
        held = optimizer.state[parameter]["fisher"] * 1e9 * LR >= 1
        assert held.any() or parameter.numel() < 100
        moved = (parameter.detach() - origin).abs()[held]
        assert (moved <= 10 * LR).all()  # one step of AdamW, which the moments bound, and no more


def test_a_strength_means_the_same_at_any_scale_of_the_loss() -> None:
    ends = []
    for scale in (1.0, 2.0**20):
        net = Net()
        optimizer = TunedAdamW(net.named_parameters(), FisherL2SP(3.0), lr=LR)
        optimizer.receive({n: s.float() * scale for n, s in zip(optimizer.trained, sensitivities(net), strict=True)})
        ends.append(weights(run(net, optimizer, range(5))))
    assert_same_bits(*ends)


def test_sparse_clips_only_what_trains() -> None:
    net = Net()
    optimizer = optimizer_of(net, SparseTuning(0.1))
    net.set_gradients(0)
    optimizer.change_gradients()
    for parameter in net.parameters():
        assert not parameter.grad[optimizer.state[parameter]["mask"] == 0].any()
    norm = nn.utils.get_total_norm([p.grad for p in net.parameters()])
    net.set_gradients(0)
    assert 0 < norm < nn.utils.get_total_norm([p.grad for p in net.parameters()])


def test_what_never_matters_to_the_loss_does_not_train() -> None:
    net = Net()
    optimizer = TunedAdamW(net.named_parameters(), SparseTuning(0.9), lr=LR)
    optimizer.receive({n: (s > s.median()).float() for n, s in zip(optimizer.trained, sensitivities(net), strict=True)})
    for parameter, s in zip(net.parameters(), sensitivities(net), strict=True):
        assert torch.equal(optimizer.state[parameter]["mask"] > 0, s > s.median())


def test_one_method_inside_another_gets_what_it_asks_for() -> None:
    both = SparseTuning(0.5, batches=4, of=WiSE([0.1, 0.9], of=FisherL2SP(batches=9, of=MST())))
    assert both.batches == 9
    assert both.choices == (0.1, 0.9)
    assert effective_rate(both) == pytest.approx(0.5 * 0.175)
    assert EMA(of=MST(update="velocity")).choose_betas(None) == (0.0, 0.999)
    net = Net()
    optimizer = optimizer_of(net, both)
    assert optimizer.state[net.large].keys() >= {"anchor", "fisher", "mask"}


def test_a_method_of_one_function_inside_another() -> None:
    alone, inside = Net(), Net()
    run(alone, optimizer_of(alone, Halved()), range(5))
    run(inside, optimizer_of(inside, L2SP(0.0, of=Halved())), range(5))
    assert_same_bits(weights(alone), weights(inside))


class Still:
    """A part of a third party's class: no step is taken."""

    def adjust(self, step: Tensor, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        return torch.zeros_like(step)


@both_kernels
@pytest.mark.parametrize("kind", [MST, ScalarMomentum, Around, WiSE, EMA, L2SP, SparseTuning])
def test_an_adjust_of_a_subclass_decides(kind: type[Tuning], fused: bool) -> None:
    net = Net()
    run(net, optimizer_of(net, type("Mine", (Still, kind), {})(), fused=fused), range(2))
    assert_same_bits(weights(net), weights(Net()))


def test_an_adjust_of_a_subclass_may_ask_what_it_overrides() -> None:
    class Mine(Around):
        def adjust(self, step: Tensor, gradient: Tensor, state: dict[str, Any]) -> Tensor:
            return super().adjust(step, gradient, state) * 0.5

    ours, plain = Net(), Net()
    run(ours, optimizer_of(ours, Mine("mst"), weight_decay=0, lr=2e-2), range(5))
    run(plain, optimizer_of(plain, MST(), weight_decay=0), range(5))
    assert_near(weights(ours), [weight.double() for weight in weights(plain)])
    for inner in ("ema", "l2sp", {"name": "wise", "arguments": {"of": "sparse"}}):
        with pytest.raises(UserError, match=r"Put \w+ around it"):
            Mine(inner)


# ---------------------------------------------------------------- what the user is told
@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        (lambda: WiSE(1.5), r"alpha = 1.5"),
        (lambda: WiSE([]), r"expected a number in \[0, 1\]"),
        (lambda: EMA(1.0), "decay = 1.0"),
        (lambda: EMA(of="wise"), "wise of ema"),
        (lambda: L2SP(-1.0), "strength = -1"),
        (lambda: FisherL2SP(batches=0), "batches = 0"),
        (lambda: FisherL2SP(of="l2sp"), "one of a kind"),
        (lambda: EMA(of=L2SP(of=EMA())), "one of a kind"),
        (lambda: SparseTuning(0), "share = 0"),
        (lambda: SparseTuning("half"), "share = half"),
        (lambda: MST("ab"), "momentum = ab"),
        (lambda: MST(["a", 0.9]), "expected two numbers"),
        (lambda: SparseTuning(20), "share = 20"),
        (lambda: EMA(of="mts"), "Did you mean 'mst'"),
        (lambda: EMA(of={"name": "mst", "arguments": {"momentun": 1}}), "momentun"),
        (lambda: EMA(of={"method": "mst"}), "expected the name of a tuning method"),
        (lambda: EMA(of="builtins:dict"), "makes a dict"),
        (lambda: MST(order="descending"), "order of MST"),
        (lambda: MST(by="moments"), "Did you mean 'moment'"),
        (lambda: MST(update="released", by="moment"), "Leave the by out"),
    ],
)
def test_wrong_settings_are_named(make: Callable[[], Any], fragment: str) -> None:
    with pytest.raises(UserError, match=fragment):
        make()


def test_a_method_that_measures_refuses_to_step_before() -> None:
    net = Net()
    optimizer = optimizer_of(net, SparseTuning(), measured=False)
    net.set_gradients(0)
    with pytest.raises(UserError, match="needs sensitivities"):
        optimizer.step()
    assert FullFineTuning().batches == 0


@needs_gpu
@pytest.mark.parametrize("make", [L2SP, SRFT, EMA, SparseTuning, lambda: MST(by="moment", scope="network", order="inverse")])
def test_a_step_on_a_gpu_never_waits_for_it_and_agrees_with_the_cpu(make: Callable[[], Tuning]) -> None:
    here, there = Net(), Net().to("cuda")
    left, right = (
        optimizer_of(here, make(), fused=True),
        TunedAdamW(there.named_parameters(), make(), lr=LR, weight_decay=DECAY),
    )
    if right.unmeasured:
        right.receive(dict(zip(right.trained, [s.float() for s in sensitivities(Net())], strict=True)))
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
    with left.evaluation_weights(), right.evaluation_weights():
        for a, b in zip(weights(here), weights(there), strict=True):
            torch.testing.assert_close(a, b.cpu(), rtol=1e-4, atol=1e-5)
