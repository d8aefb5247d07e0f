"""Triton kernels: ranks, AdamW and the momentum update of all tensors of a group, in a few launches and one pass over memory.

Ranks are those of `ranks.py`, the arithmetic is that of `proposals.py` and `momentum.py`, in float32. Bytes decide: a step
reads the gradient twice and everything else once, 32 bytes for a parameter where AdamW alone moves 28. A program finds its
tensor in a table of addresses, and all that changes from step to step is read on the device.
"""

import triton
import triton.language as tl

TILE = tl.constexpr(4096)
"""Elements that a program moves."""
COUNTED = tl.constexpr(131072)
"""Elements that a program counts, `TILE` at a time."""
WINDOW = tl.constexpr(4096)
"""Bins that a program counts in its own memory: 16 octaves at 16 bits, and"""
ABOVE = tl.constexpr(2)
"""so many of these octaves are above its first elements, where a few of the others may be."""
ROW, OTHERS = tl.constexpr(256), tl.constexpr(64)
"""Elements that a program ranks exactly and moves, and how many it compares them with at a time."""
BLOCK = tl.constexpr(4096)
"""Bins that are made ranks at a time."""
TENSORS = tl.constexpr(256)
"""Tensors whose counts of steps a program advances."""

GRADIENT, SIZE, BITS, TABLE, PARAMETER, MEAN, SQUARE, STEP, VELOCITY, COLUMNS = map(tl.constexpr, range(10))
"""Columns of the table: addresses, number of elements, resolution, where the tensor's ranks begin; and how many there are."""


@triton.jit
def pointer_of(rows, row, column: tl.constexpr, kind: tl.constexpr, aligned: tl.constexpr):
    """The address in a cell of the table."""
    pointer = tl.load(rows + row * COLUMNS + column).to(tl.pointer_type(kind))
    if aligned:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def size_of(rows, row, aligned: tl.constexpr):
    """Number of elements of a tensor."""
    size = tl.load(rows + row * COLUMNS + SIZE).to(tl.int32)
    if aligned:
        size = tl.multiple_of(size, 16)
    return size


@triton.jit
def moved_of(size, skip, skips: tl.constexpr):
    """How many of so many are moved: none in a step that is skipped."""
    moved = size
    if skips:
        moved = tl.where(tl.load(skip) == 0, size, 0)
    return moved


@triton.jit
def magnitude_of(gradient):
    """Integers that order as |gradient| does; NaN comes last."""
    return gradient.to(tl.float32).to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def power(high, low, exponent):
    """(high + low) ** exponent in float64, for a count below 2 ** 24."""
    base = tl.cast(high, tl.float64) + tl.cast(low, tl.float64)
    result = tl.zeros(exponent.shape, tl.float64) + 1
    left = exponent.to(tl.int32)
    for _ in range(24):
        result = tl.where((left & 1) != 0, result * base, result)
        base = base * base
        left = left >> 1
    return result


@triton.jit
def scale_at(twice, size, low, high):
    """1 - m from twice a middle rank; exact at both ends."""
    rank = tl.where(size < 2, 0.5, tl.math.div_rn(twice.to(tl.float32), tl.maximum(2 * (size - 1), 1).to(tl.float32)))
    return (1 - low) + (low - high) * rank


@triton.jit(do_not_specialize=["tensors"])
def advance(rows, tensors, factors, skip, lr, decay, beta1, rest1, beta2, rest2, skips: tl.constexpr, tensor_lr: tl.constexpr):
    """Count a step of every tensor, and write what depends on its count: (rate, root, decay) of each.

    Betas come as two float32 numbers each, whose sum they are: at the first steps 1 - beta ** step needs all their digits.
    """
    row = tl.program_id(0) * TENSORS + tl.arange(0, TENSORS)
    valid = row < tensors
    counter = tl.load(rows + row * COLUMNS + STEP, mask=valid, other=0).to(tl.pointer_type(tl.float32))
    step = tl.load(counter, mask=valid, other=0) + 1
    tl.store(counter, step, mask=row < moved_of(tensors, skip, skips))
    rate = lr
    if tensor_lr:
        rate = tl.load(lr).to(tl.float32)
    tl.store(factors + row * 3, (rate / (1 - power(beta1, rest1, step))).to(tl.float32), mask=valid)
    tl.store(factors + row * 3 + 1, (1 / tl.sqrt(1 - power(beta2, rest2, step))).to(tl.float32), mask=valid)
    tl.store(factors + row * 3 + 2, tl.zeros((TENSORS,), tl.float32) + rate * decay, mask=valid)


@triton.jit
def own_memory(anything):
    """Address of `WINDOW` numbers in the memory of a multiprocessor.

    `tl.histogram` of Triton before 3.8 (torch 2.11, 2.12) compares every element with every bin: 94 ms on an H100 for 200 M
    elements, where these instructions take less than 0.5.
    """
    tl.static_assert(WINDOW == 4096)
    declare: tl.constexpr = ".shared .align 16 .b8 counted[16384]; mov.u32 $0, counted;"
    return tl.inline_asm_elementwise(declare, "=r,r", [anything], tl.int32, False, 1)


@triton.jit
def clear_own(address):
    """Write zeros at int32 addresses of `own_memory`."""
    tl.inline_asm_elementwise("st.shared.u32 [$1], 0; mov.u32 $0, 0;", "=r,r", [address], tl.int32, False, 1)
    tl.debug_barrier()


@triton.jit
def add_to_own(address, wanted):
    """Add one at addresses where `wanted` is not 0."""
    add: tl.constexpr = "{ .reg .pred p; setp.ne.u32 p, $2, 0; @p red.shared.add.u32 [$1], 1; mov.u32 $0, 0; }"
    tl.inline_asm_elementwise(add, "=r,r,r", [address, wanted], tl.int32, False, 1)


@triton.jit
def add_to_table(address, wanted):
    """Add one at int64 addresses of global memory where `wanted` is not 0.

    `tl.atomic_add` first exchanges addresses among the threads, with four barriers for each `TILE`, so that neighbours add to
    neighbours; but few are wanted.
    """
    add: tl.constexpr = "{ .reg .pred p; setp.ne.u32 p, $2, 0; @p red.global.add.u32 [$1], 1; mov.u32 $0, 0; }"
    tl.inline_asm_elementwise(add, "=r,l,r", [address, wanted], tl.int32, False, 1)


@triton.jit
def read_own(address):
    """What has been added at addresses by all threads."""
    tl.debug_barrier()
    return tl.inline_asm_elementwise("ld.shared.u32 $0, [$1];", "=r,r", [address], tl.int32, False, 1)


@triton.jit
def count(rows, places, counts, kind: tl.constexpr, aligned: tl.constexpr, shared: tl.constexpr, ptx: tl.constexpr):
    """Add a stretch of a gradient to the histogram of its tensor, or to one that is shared.

    Keys around the largest of its beginning are counted in the program's own memory, by instructions of `ptx` or without.
    Of the others only zeros are many: they are counted together.
    """
    row = tl.load(places + tl.program_id(0) * 2)
    start = tl.load(places + tl.program_id(0) * 2 + 1) * COUNTED
    size = size_of(rows, row, aligned)
    gradients = pointer_of(rows, row, GRADIENT, kind, aligned)
    if shared:
        bits = 16
        table = counts
    else:
        bits = tl.load(rows + row * COLUMNS + BITS).to(tl.int32)
        table = counts + tl.load(rows + row * COLUMNS + TABLE)
    element = start + tl.arange(0, TILE)
    largest = tl.max(magnitude_of(tl.load(gradients + element, mask=element < size, other=0)) >> (31 - bits), 0)
    first = tl.maximum(largest + (ABOVE << (bits - 8)) - (WINDOW - 1), 0)
    bins = tl.arange(0, WINDOW)
    zeros = tl.zeros((TILE,), tl.int32)
    near = tl.zeros((WINDOW,), tl.int32)
    if ptx:
        memory = own_memory(row)
        clear_own(memory + 4 * bins)
    stop = tl.minimum(start + COUNTED, size)
    while start < stop:
        element = start + tl.arange(0, TILE)
        valid = element < size
        key = magnitude_of(tl.load(gradients + element, mask=valid, other=0)) >> (31 - bits)
        inside = valid & (key >= first) & (key < first + WINDOW)
        outside = valid & ~inside
        far = outside & (key > 0)
        if ptx:
            add_to_own(memory + 4 * (key - first), inside.to(tl.int32))
            add_to_table((table + key).to(tl.int64), far.to(tl.int32))
        else:
            near += tl.histogram(key - first, WINDOW, mask=inside)
            tl.atomic_add(table + key, 1, mask=far, sem="relaxed")
        zeros += (outside & (key == 0)).to(tl.int32)
        start += TILE
    if ptx:
        near = read_own(memory + 4 * bins)
    tl.atomic_add(table + first + bins, near, mask=near > 0, sem="relaxed")
    zero = tl.sum(zeros, 0)
    tl.atomic_add(table, zero, mask=zero > 0, sem="relaxed")


@triton.jit(do_not_specialize=["first"])
def tabulate(rows, first, counts, low, high):
    """Turn the histogram of a tensor into 1 - m of each bin, by the middle rank of its elements, in the same memory."""
    row = first + tl.program_id(0)
    size = size_of(rows, row, False)
    table = counts + tl.load(rows + row * COLUMNS + TABLE)
    bins = 1 << tl.load(rows + row * COLUMNS + BITS).to(tl.int32)
    before = 0
    start = 0
    while start < bins:
        place = table + start + tl.arange(0, BLOCK)
        here = tl.load(place)
        upto = before + tl.cumsum(here, 0)
        scale = scale_at(2 * upto - here - 1, size, low, high)
        tl.store(place, scale.to(tl.int32, bitcast=True))
        before += tl.sum(here, 0)
        start += BLOCK


@triton.jit
def move(
    rows, row, element, valid, gradient, scale, factors, fresh1, beta2, fresh2, eps,
    velocity: tl.constexpr, aligned: tl.constexpr,
):  # fmt: skip
    """AdamW's step of some elements of a tensor, and what becomes of it."""
    place = pointer_of(rows, row, PARAMETER, tl.float32, aligned) + element
    mean_place = pointer_of(rows, row, MEAN, tl.float32, aligned) + element
    square_place = pointer_of(rows, row, SQUARE, tl.float32, aligned) + element
    gradient = gradient.to(tl.float32)
    parameter = tl.load(place, mask=valid, other=0)
    mean = tl.load(mean_place, mask=valid, other=0)
    change = gradient - mean
    mean = tl.where(fresh1 < 0.5, mean + fresh1 * change, gradient - (1 - fresh1) * change)  # as torch's lerp: exact at 1
    square = beta2 * tl.load(square_place, mask=valid, other=0) + fresh2 * gradient * gradient
    rate, root, decay = tl.load(factors + row * 3), tl.load(factors + row * 3 + 1), tl.load(factors + row * 3 + 2)
    step = -rate * (mean / (tl.sqrt(square) * root + eps)) - decay * parameter
    if velocity:
        rho_place = pointer_of(rows, row, VELOCITY, tl.float32, aligned) + element
        rho = tl.load(rho_place, mask=valid, other=0)
        rho += scale * (step - rho)
        tl.store(rho_place, rho, mask=valid)
        tl.store(place, parameter + rho, mask=valid)
    else:
        tl.store(place, parameter + scale * step, mask=valid)
    tl.store(mean_place, mean, mask=valid)
    tl.store(square_place, square, mask=valid)


@triton.jit
def step_by_table(
    rows, places, table, factors, skip, low, fresh1, beta2, fresh2, eps,
    kind: tl.constexpr, aligned: tl.constexpr, skips: tl.constexpr, velocity: tl.constexpr,
    ranked: tl.constexpr, shared: tl.constexpr,
):  # fmt: skip
    """Take the step of a stretch of a tensor; 1 - m by the top bits of the gradient, or one for all if nothing is `ranked`."""
    row = tl.load(places + tl.program_id(0) * 2)
    element = tl.load(places + tl.program_id(0) * 2 + 1) * TILE + tl.arange(0, TILE)
    valid = element < moved_of(size_of(rows, row, aligned), skip, skips)
    gradient = tl.load(pointer_of(rows, row, GRADIENT, kind, aligned) + element, mask=valid, other=0)
    scale = 1 - low
    if ranked:
        key = magnitude_of(gradient)
        if shared:
            scale = tl.load(table + (key >> 15))
        else:
            bits = tl.load(rows + row * COLUMNS + BITS).to(tl.int32)
            scale = tl.load(table + tl.load(rows + row * COLUMNS + TABLE) + (key >> (31 - bits)))
    move(rows, row, element, valid, gradient, scale, factors, fresh1, beta2, fresh2, eps, velocity, aligned)


@triton.jit
def step_by_pairs(
    rows, places, factors, skip, low, high, fresh1, beta2, fresh2, eps,
    kind: tl.constexpr, skips: tl.constexpr, velocity: tl.constexpr,
):  # fmt: skip
    """Take the step of a stretch of a small tensor by exact ranks: each element is compared with all others."""
    row = tl.load(places + tl.program_id(0) * 2)
    element = tl.load(places + tl.program_id(0) * 2 + 1) * ROW + tl.arange(0, ROW)
    size = size_of(rows, row, False)
    valid = element < moved_of(size, skip, skips)
    gradients = pointer_of(rows, row, GRADIENT, kind, False)
    gradient = tl.load(gradients + element, mask=valid, other=0)
    key = magnitude_of(gradient)
    found = tl.zeros((ROW, OTHERS), tl.int32)  # summed at the end: the threads of a sum wait for each other
    start = 0
    while start < size:
        other = start + tl.arange(0, OTHERS)
        there = other < size
        others = magnitude_of(tl.load(gradients + other, mask=there, other=0))
        lower = there[None, :] & (others[None, :] < key[:, None])
        equal = there[None, :] & (others[None, :] == key[:, None])
        found += 2 * lower.to(tl.int32) + equal.to(tl.int32)
        start += OTHERS
    scale = scale_at(tl.sum(found, 1) - 1, size, low, high)
    move(rows, row, element, valid, gradient, scale, factors, fresh1, beta2, fresh2, eps, velocity, False)
