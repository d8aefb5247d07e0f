"""What a tuning method costs beside `torch.optim.AdamW(fused=True)`, in a whole training iteration.

    python benchmarks/tuning_cost.py [--model mst-b256 --batch 4]

Every round computes one iteration (forward, backward, clipping, step) with each optimizer in turn, so that whatever else the
machine does meets all of them alike; the table shows medians.
"""

import argparse
import copy
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
from mstrack.tuning import MST, FullFineTuning, ScalarMomentum, TunedAdamW, Tuning

PATTERNS = [("head.*", 0.0), ("position*", 0.0), ("*", 1.0)]
BASELINE = "AdamW, fused"
METHODS: dict[str, tuple[Callable[[], Tuning], bool]] = {
    "full fine-tuning": (FullFineTuning, False),
    "scalar momentum": (ScalarMomentum, False),
    "MST, exact ranks": (lambda: MST(rank="exact"), False),
    "MST, histogram": (MST, False),
    "MST, histogram, fused": (MST, True),
    "MST, histogram, network": (lambda: MST(scope="network"), False),
    "MST, velocity": (lambda: MST(update="velocity"), False),
}


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


def make_optimizers(base: nn.Module, methods: list[str]) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
    """A copy of the network and an optimizer for each method, and for the baseline."""
    found: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {}
    for name in methods:
        make, fused = METHODS.get(name, (FullFineTuning, False))
        network = copy.deepcopy(base)
        optimizer: torch.optim.Optimizer = TunedAdamW(
            network.named_parameters(), make(), lr=1e-5, patterns=PATTERNS, fused=fused or None
        )
        if name == BASELINE:
            trained = [p for group in optimizer.param_groups for p in group["params"]]
            optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=1e-4, fused=True)
        found[name] = network, optimizer
    return found


def measure(pairs: dict[str, tuple[nn.Module, torch.optim.Optimizer]], batch: int, rounds: int) -> tuple[Any, Any, Any]:
    """Seconds of forward + backward + clipping, seconds of each method's step, and bytes that each keeps or takes."""
    model: Any = next(iter(pairs.values()))[0]
    template, search = (
        torch.randn(batch, model.modalities, 3, size, size) for size in (model.template_size, model.search_size)
    )
    boxes = torch.tensor([[0.4, 0.4, 0.2, 0.2]]).expand(batch, 4)
    work: list[float] = []
    steps: dict[str, list[float]] = {name: [] for name in pairs}
    memory: dict[str, int] = {}
    for number in range(rounds + 1):
        for name, (network, optimizer) in pairs.items():
            begin = time.perf_counter()
            tracking_losses(network(template, search), boxes)["total"].backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.1)
            middle = time.perf_counter()
            if number == 0:
                with PeakMemory() as tracked:
                    optimizer.step()
                memory[name] = tracked.peak
            else:
                optimizer.step()
                steps[name].append(time.perf_counter() - middle)
                work.append(middle - begin)
            optimizer.zero_grad()
    return work, steps, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mst-tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=30, help="iterations with each optimizer")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", choices=list(METHODS), help="these methods (each needs a copy of the network)")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    base = create_model(chosen.model).train()
    pairs = make_optimizers(base, [BASELINE, *(chosen.only or METHODS)])
    trained = sum(p.numel() for p in next(iter(pairs.values()))[0].parameters() if p.requires_grad)
    work, steps, memory = measure(pairs, chosen.batch, chosen.rounds)

    baseline = statistics.median(steps[BASELINE])
    iteration = statistics.median(work) + baseline
    table = Table(
        title=f"{chosen.model}, batch {chosen.batch}: {trained / 1e6:.2f} M trainable parameters, iteration"
        f" {1e3 * iteration:.1f} ms (of it the fused step {1e3 * baseline:.2f} ms)",
        caption=f"torch {torch.__version__}, {chosen.threads} threads, median of {chosen.rounds} rounds",
    )
    for head in ("optimizer", "step, ms", "extra, ms", "extra / iteration", "extra memory, MB"):
        table.add_column(head, justify="left" if head == "optimizer" else "right")
    for name, times in steps.items():
        step = statistics.median(times)
        extra = step - baseline
        table.add_row(
            name,
            f"{1e3 * step:.2f}",
            f"{1e3 * extra:+.2f}",
            f"{100 * extra / iteration:+.2f} %",
            f"{(memory[name] - memory[BASELINE]) / 1e6:+.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
