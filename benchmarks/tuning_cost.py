"""What a tuning method costs beside `torch.optim.AdamW(fused=True)`, as a share of a whole training iteration.

    python benchmarks/tuning_cost.py [--model mst-b256 --batch 4] [--device cuda --batch 24] [--clock cpu]

Every round computes an iteration (forward, backward, clipping), then on its gradients the step of each optimizer in turn, each
after the caches have been filled with something else, as an iteration leaves them. Shares and ratios are of one round, so that
whatever else the machine does meets both sides alike; the table shows medians over the rounds. On a busy machine, CPU time of
one thread (threads that wait for each other count as busy) tells more than the clock on the wall. On a GPU a step's time is
the device's, which is kept busy before so that it never waits for a launch, as in a run; the host's is in its own column.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mstrack.losses import tracking_losses
from mstrack.models import create_model
from mstrack.models.blocks import Prediction
from mstrack.tuning import MST, FullFineTuning, ScalarMomentum, TunedAdamW, Tuning

PATTERNS = [("head.*", 0.0), ("position*", 0.0), ("*", 1.0)]
BASELINE = "AdamW, fused"
METHODS: dict[str, tuple[Callable[[], Tuning], dict[str, Any]]] = {
    "full": (FullFineTuning, {}),
    "scalar": (ScalarMomentum, {}),
    "mst": (MST, {}),
    "mst-network": (lambda: MST(scope="network"), {}),
    "mst-velocity": (lambda: MST(update="velocity"), {}),
    "mst-torch": (MST, {"kernel": "torch"}),
    "mst-plain": (MST, {"fused": False}),
    "mst-exact": (lambda: MST(rank="exact"), {"fused": False}),
}
FLUSHED = 1 << 26
"""Bytes that are written before a step: more than caches hold."""
HELD = 100_000_000
"""Cycles for which a GPU is held, about 60 ms, while the host launches a step."""


class PeakMemory(TorchDispatchMode):
    """Bytes of the tensors that are made while it is active and alive together."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in known:
                storage = leaf.untyped_storage()
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def make_optimizers(network: nn.Module, methods: list[str]) -> dict[str, torch.optim.Optimizer]:
    """An optimizer of the same network for the baseline and each method."""
    made: dict[str, torch.optim.Optimizer] = {}
    for name in methods:
        make, how = METHODS[name]
        made[name] = TunedAdamW(network.named_parameters(), make(), lr=1e-6, patterns=PATTERNS, **how)
    trained = [p for p in network.parameters() if p.requires_grad]
    return {BASELINE: torch.optim.AdamW(trained, lr=1e-6, weight_decay=1e-4, fused=True), **made}


def make_iteration(network: Any, batch: int, device: str) -> Callable[[], None]:
    """Forward, backward and clipping of one batch; on a GPU in bf16."""
    sizes = (network.template_size, network.search_size)
    template, search = (torch.randn(batch, network.modalities, 3, size, size, device=device) for size in sizes)
    boxes = torch.tensor([[0.4, 0.4, 0.2, 0.2]], device=device).expand(batch, 4)

    def iterate() -> None:
        network.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            maps = network(template, search)
        tracking_losses(Prediction(*(part.float() for part in maps)), boxes)["total"].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.1)

    return iterate


def device_seconds(step: Callable[[], Any]) -> tuple[float, float]:
    """What a step takes on a GPU, and the host to launch it."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(HELD)
    begin.record()
    started = time.perf_counter()
    step()
    launched = time.perf_counter() - started
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3, launched


def seconds(job: Callable[[], Any], device: str, clock: str) -> float:
    """What a job takes: wall-clock time, or CPU time of all threads."""
    now = time.perf_counter if clock == "wall" else time.process_time
    if device == "cuda":
        torch.cuda.synchronize()
    begin = now()
    job()
    if device == "cuda":
        torch.cuda.synchronize()
    return now() - begin


def first_step(step: Callable[[], Any], device: str) -> int:
    """Take the first step, which makes what is kept; the most bytes it holds at a time, or keeps."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with PeakMemory() as tracked:
        step()
    return tracked.peak


def measure(
    network: nn.Module, optimizers: dict[str, torch.optim.Optimizer], chosen: argparse.Namespace
) -> tuple[Any, Any, Any, Any]:
    """Seconds of each round's iteration; of each optimizer's steps, and on a GPU to launch them; and bytes of its first one."""
    iterate = make_iteration(network, chosen.batch, chosen.device)
    filler = torch.zeros(FLUSHED, dtype=torch.uint8, device=chosen.device)
    iterate()
    memory = {name: first_step(optimizer.step, chosen.device) for name, optimizer in optimizers.items()}
    work: list[float] = []
    steps: dict[str, list[float]] = {name: [] for name in optimizers}
    launches: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(chosen.rounds):
        work.append(seconds(iterate, chosen.device, chosen.clock))
        for name, optimizer in optimizers.items():
            filler.add_(1)
            if chosen.device == "cuda":
                taken, launched = device_seconds(optimizer.step)
                launches[name].append(launched)
            else:
                taken = seconds(optimizer.step, chosen.device, chosen.clock)
            steps[name].append(taken)
    return work, steps, launches, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mst-tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--only", nargs="*", choices=list(METHODS), help="these methods; each takes two buffers per parameter")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    network = create_model(chosen.model).train().to(chosen.device)
    optimizers = make_optimizers(network, chosen.only or list(METHODS))
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    work, steps, launches, memory = measure(network, optimizers, chosen)

    baseline = steps[BASELINE]
    table = Table(
        title=f"{chosen.model}, batch {chosen.batch}, {chosen.device}: {trained / 1e6:.2f} M trainable parameters, iteration"
        f" {1e3 * statistics.median(w + b for w, b in zip(work, baseline, strict=True)):.1f} ms",
        caption=f"torch {torch.__version__}, {chosen.threads} threads, {chosen.clock} time, median of {chosen.rounds} rounds",
    )
    cuda = chosen.device == "cuda"
    heads = ["optimizer", "step, ms", "step / AdamW", "extra / iteration", "extra memory, MB", *(["host, ms"] if cuda else [])]
    for head in heads:
        table.add_column(head, justify="left" if head == "optimizer" else "right")
    for name, times in steps.items():
        shares = [(t - b) / (w + b) for t, b, w in zip(times, baseline, work, strict=True)]
        table.add_row(
            name,
            f"{1e3 * statistics.median(times):.2f}",
            f"{statistics.median(t / b for t, b in zip(times, baseline, strict=True)):.2f}",
            f"{100 * statistics.median(shares):+.2f} %",
            f"{(memory[name] - memory[BASELINE]) / 1e6:+.2f}",
            *([f"{1e3 * statistics.median(launches[name]):.2f}"] if cuda else []),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
