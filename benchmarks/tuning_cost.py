"""What a tuning method adds to a training iteration: every variant steps on the same gradients, in turn, in one run.

    python benchmarks/tuning_cost.py [--model mst-tiny --batch 16 --rounds 40]

`extra` is the time over torch's fused AdamW as a share of the whole iteration (forward, backward, clipping, that AdamW).
`memory` is what the optimizer holds beyond AdamW's two moments and step counts, over the size of the parameters.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from mstrack import create_model
from mstrack.losses import tracking_losses
from mstrack.tuning import MST, FullFineTuning, ScalarMomentum, TunedAdamW, Tuning

FROZEN = (("head.*", 0), ("position_*", 0), ("*", 1))
VARIANTS: dict[str, Callable[[], Tuning]] = {
    "full (ours)": FullFineTuning,
    "scalar momentum": ScalarMomentum,
    "MST, histogram": MST,
    "MST, histogram, network": lambda: MST(scope="network"),
    "MST, velocity": lambda: MST(update="velocity"),
    "MST, exact": lambda: MST(rank="exact"),
}


def make_iteration(model: nn.Module, batch: int, device: torch.device) -> Callable[[], None]:
    """Forward, backward and clipping on random crops."""
    model.train()
    shape = (batch, model.modalities, 3)
    template = torch.randn(*shape, model.template_size, model.template_size, device=device)
    search = torch.randn(*shape, model.search_size, model.search_size, device=device)
    boxes = torch.tensor([[0.4, 0.4, 0.2, 0.25]], device=device).repeat(batch, 1)

    def iterate() -> None:
        model.zero_grad()
        tracking_losses(model(template, search), boxes)["total"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)

    return iterate


def extra_memory(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of scratch buffers and of state beyond AdamW's."""
    seen: dict[int, int] = {}
    for state in optimizer.state.values():
        for name, value in state.items():
            if torch.is_tensor(value) and name not in ("step", "exp_avg", "exp_avg_sq"):
                seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    for group in getattr(optimizer, "_chunks", {}).values():
        for chunk in (chunk for row in group for chunk in row):
            for buffer in (chunk.proposal, chunk.spare, chunk.keys):
                seen[buffer.untyped_storage().data_ptr()] = buffer.untyped_storage().nbytes()
    return sum(seen.values())


def clock(job: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    job()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mst-tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()

    device = torch.device(options.device)
    model = create_model(options.model).to(device)
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for name, make in VARIANTS.items():
        optimizers[name] = TunedAdamW(model.named_parameters(), make(), lr=1e-9, patterns=FROZEN)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizers = {"AdamW(fused=True)": torch.optim.AdamW(trained, lr=1e-9, weight_decay=1e-4, fused=True), **optimizers}

    iterate = make_iteration(model, options.batch, device)
    iteration: list[float] = []
    steps: dict[str, list[float]] = {name: [] for name in optimizers}
    for turn in range(options.rounds + 3):
        whole = clock(iterate, device)
        times = {name: clock(optimizer.step, device) for name, optimizer in optimizers.items()}
        if turn >= 3:
            iteration.append(whole + times["AdamW(fused=True)"])
            for name, value in times.items():
                steps[name].append(value)

    reference, whole = statistics.median(steps["AdamW(fused=True)"]), statistics.median(iteration)
    size = sum(p.numel() * p.element_size() for p in trained)
    table = Table(
        title=f"{options.model}, batch {options.batch}, {device.type}, iteration {whole:.1f} ms, {len(trained)} tensors"
    )
    for header in ("optimizer", "step, ms", "over fused, ms", "extra", "memory"):
        table.add_column(header, justify="left" if header == "optimizer" else "right")
    for name, values in steps.items():
        step = statistics.median(values)
        memory = extra_memory(optimizers[name]) / size
        table.add_row(
            name, f"{step:.2f}", f"{step - reference:+.2f}", f"{100 * (step - reference) / whole:+.1f} %", f"{memory:.2f}"
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
