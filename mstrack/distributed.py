"""`torch.distributed` as torchrun starts it; one process without it."""

import datetime
import itertools
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist

from mstrack.errors import UserError

POLL = 0.02
"""Seconds between two looks of the first rank at who has come."""
MESSAGE = 1 << 27
"""Bytes that are sent together."""


class Place(NamedTuple):
    """Where this process stands among all."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0


def torchrun_rank() -> tuple[int, int]:
    """Rank and number of processes, as torchrun says in the environment; no group is joined.

    Raises:
        UserError: They are no such numbers.
    """
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise UserError(f"RANK={rank} and WORLD_SIZE={world} in the environment: expected those of torchrun, or neither.")
    return int(rank), int(world)


def start(device: str = "auto", timeout: float = 10.0) -> Place:
    """Join the other processes if torchrun started this one.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, or `auto`: this process's GPU where there is one.
        timeout: Minutes that the others are waited for, here and in whatever all do together. Then an error ends this process,
            and torchrun ends the others or starts all anew.

    Raises:
        UserError: No such device; or the environment does not say where the others are.
        RuntimeError: The group has another size than torchrun said: never train as several lonely processes.
    """
    rank, world = torchrun_rank()
    chosen = choose_device(device)
    if world > 1 and not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        patience = datetime.timedelta(minutes=timeout)
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if missing:
            raise UserError(
                f"WORLD_SIZE={world} in the environment, but no {' and no '.join(missing)}: start the command by torchrun,"
                " which sets all of them, or unset WORLD_SIZE and RANK for one process."
            )
        store, _, _ = next(dist.rendezvous("env://", timeout=patience))
        own = dist.PrefixStore(agree_on_start(store, rank, world, patience), store)
        dist.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=patience)
    if world > 1 and (dist.get_world_size() != world or dist.get_rank() != rank):
        raise RuntimeError(f"torchrun said rank {rank} of {world}, the group says {dist.get_rank()} of {dist.get_world_size()}")
    return Place(rank, world, chosen)


def agree_on_start(store: dist.Store, rank: int, world: int, patience: datetime.timedelta) -> str:
    """A name for this start of the run that all ranks get, and no earlier start had.

    torchrun keeps one store through its restarts (torch 2.13, unless TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1), and what the ranks
    of an earlier start left there, their addresses, would be taken for that of the new ones. Its count of restarts names no
    start either: every machine has its own. So each rank comes with a word nobody used before, and the first rank answers to
    that word, and goes on when all have said that they heard.

    Raises:
        RuntimeError: Not all came in time.
    """
    word = uuid.uuid4().hex
    if rank > 0:
        store.set(f"came/{rank}", word)
        store.wait([f"answer/{word}"], patience)
        start = store.get(f"answer/{word}").decode()
        store.set(f"heard/{start}/{rank}", "")
        return start
    awaited, deadline = set(range(1, world)), time.monotonic() + patience.total_seconds()
    while awaited:
        for other in sorted(awaited):
            if store.check([f"came/{other}"]):
                store.set(f"answer/{store.get(f'came/{other}').decode()}", word)
            if store.check([f"heard/{word}/{other}"]):
                awaited.remove(other)
        if time.monotonic() > deadline:
            raise RuntimeError(f"rank(s) {sorted(awaited)} did not come in {patience.total_seconds() / 60:g} minutes.")
        time.sleep(POLL)
    return word


def stop() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def choose_device(device: str = "auto") -> torch.device:
    """The device of that name; `auto` is this process's GPU, or the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"unknown device '{device}'. Known: cpu, cuda, cuda:N, auto.") from error
    if chosen.type not in ("cpu", "cuda"):
        raise UserError(f"device '{device}' is not one that mstrack runs on. Known: cpu, cuda, cuda:N, auto.")
    if chosen.type == "cpu":
        return chosen
    if not torch.cuda.is_available():
        raise UserError(f"device '{device}' was asked for, and this machine has no usable GPU. Use device cpu or auto.")
    index = chosen.index if chosen.index is not None else int(os.environ.get("LOCAL_RANK", 0))
    if index >= torch.cuda.device_count():
        raise UserError(f"device cuda:{index} was asked for, and this machine has {torch.cuda.device_count()} GPU(s).")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def any_rank(flag: torch.Tensor) -> torch.Tensor:
    """A bool tensor that is True where it is True on any rank; stays on the device."""
    if not dist.is_initialized():
        return flag
    shared = flag.to(torch.float32)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return shared > 0


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Elementwise mean of a tensor over the ranks."""
    if not dist.is_initialized():
        return values
    dist.all_reduce(values)
    return values / dist.get_world_size()


def copy_from_first(tensors: Iterable[torch.Tensor]) -> None:
    """Give tensors the values that they have on the first rank."""
    if dist.is_initialized():
        for some, flat in _messages(tensors):
            dist.broadcast(flat, 0)
            _unpack(flat, some)


def average_over_ranks(tensors: Iterable[torch.Tensor]) -> None:
    """Replace tensors by their mean over the ranks, in place."""
    if dist.is_initialized():
        for some, flat in _messages(tensors):
            dist.all_reduce(flat.div_(dist.get_world_size()))
            _unpack(flat, some)


def _messages(tensors: Iterable[torch.Tensor]) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """Tensors of one type, and all their numbers in one: up to `MESSAGE` bytes, but at least one tensor."""
    rows: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        rows.setdefault(tensor.dtype, []).append(tensor)
    for row in rows.values():
        while row:
            sizes = itertools.accumulate(tensor.nbytes for tensor in row)
            count = max(1, sum(size <= MESSAGE for size in sizes))
            some, row[:] = row[:count], row[count:]
            yield some, torch.cat([tensor.detach().flatten() for tensor in some])


@torch.no_grad()
def _unpack(flat: torch.Tensor, some: list[torch.Tensor]) -> None:
    """The numbers of a message back to its tensors."""
    parts = flat.split([tensor.numel() for tensor in some])
    torch._foreach_copy_(some, [part.view_as(tensor) for part, tensor in zip(parts, some, strict=True)])


def values_of_ranks(value: int, device: torch.device) -> list[int]:
    """A number of every rank, in the order of the ranks; waits for all."""
    if not dist.is_initialized():
        return [value]
    own = torch.tensor(value, device=device)
    everyone = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, own)
    return [int(other) for other in everyone]


def wait() -> None:
    """Let all ranks arrive here."""
    if dist.is_initialized():
        dist.barrier()
