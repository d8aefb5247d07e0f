"""What Triton makes of `kernels.count` for a GPU, computed without one: its own instructions are what no interpreter runs."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from ptx import Memory, parse, run

STRETCH, THREADS = 131_072, 512
"""Elements that a program counts, and threads of a program."""
COLUMNS = 9

COMPILE = """
import json
import triton.language as tl
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mstrack.tuning import kernels, launches

assert (kernels.COUNTED, kernels.COLUMNS, 32 * launches.MOST_WARPS) == (131_072, 9, 512)
made = {}
for kind in ("float32", "bfloat16", "float16"):
    for shared in (False, True):
        aligned = shared is (kind == "bfloat16")
        constants = dict(kind=getattr(tl, kind), aligned=aligned, shared=shared, ptx=True)
        signature = {"rows": "*i64", "places": "*i32", "counts": "*i32"} | dict.fromkeys(constants, "constexpr")
        target = GPUTarget("cuda", 90 if aligned else 80, 32)
        even = {(place,): [["tt.divisibility", 16]] for place in range(3)}  # as of all tensors that are launched with
        source = ASTSource(kernels.count, signature, constants, even)
        made[f"{kind} {shared}"] = compile(source, target, {"num_warps": launches.MOST_WARPS}).asm["ptx"]
print(json.dumps(made))
"""

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
kinds = pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
shared_or_not = pytest.mark.parametrize("shared", [False, True], ids=["of a tensor", "shared"])


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """PTX by type of gradient and whether the histogram is shared, with and without aligned reads."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def draw(size: int, kind: str) -> torch.Tensor:
    """Gradients over more octaves than a program has memory for, with zeros and what is no number."""
    generator = torch.Generator().manual_seed(size)
    drawn = 1e-3 * torch.randn(size, generator=generator) * torch.exp(3 * torch.randn(size, generator=generator))
    drawn *= torch.rand(size, generator=generator) < 0.9
    drawn[size // 2], drawn[size // 3], drawn[-1] = torch.nan, torch.inf, -torch.inf
    return drawn.to(getattr(torch, kind))


def count(text: str, gradient: torch.Tensor, bits: int, shared: bool) -> np.ndarray:
    """The histogram that the kernel adds to one of ones."""
    memory = Memory()
    before = np.ones((2, 1 << bits), np.int32)
    table = memory.place(before)
    rows = np.zeros((2, COLUMNS), np.int64)
    offset = 0 if shared else 1 << bits
    raw = gradient.view(torch.int16 if gradient.itemsize == 2 else torch.int32).numpy()
    rows[1, :4] = memory.place(raw), len(raw), bits, offset
    stretches = -(-len(gradient) // STRETCH)
    places = np.array([[1, number] for number in range(stretches)], np.int32)
    run(text, stretches, THREADS, memory, [memory.place(rows), memory.place(places), table, 0, 0])
    after = memory.read(table, before) - before
    assert not after[1 if shared else 0].any(), "another tensor's counts have changed"
    return after[0 if shared else 1]


def expected(gradient: torch.Tensor, bits: int) -> np.ndarray:
    keys = (gradient.float().view(torch.int32) & 0x7FFFFFFF) >> 31 - bits
    return np.bincount(keys.numpy(), minlength=1 << bits)


@kinds
@shared_or_not
def test_counts_on_a_gpu_are_those_of_numpy(compiled: dict[str, str], kind: str, shared: bool) -> None:
    for size, bits in ((STRETCH + 16 * 531, 14), (8192, 15), (16, 14)):
        bits = 16 if shared else bits
        gradient = draw(size, kind)
        np.testing.assert_array_equal(count(compiled[f"{kind} {shared}"], gradient, bits, shared), expected(gradient, bits))


@kinds
def test_zeros_and_equals_are_counted_too(compiled: dict[str, str], kind: str) -> None:
    for value in (0.0, 1.0, torch.inf):
        gradient = torch.full((8192 + 16,), value, dtype=getattr(torch, kind))
        gradient[::7] = 0
        np.testing.assert_array_equal(count(compiled[f"{kind} False"], gradient, 14, False), expected(gradient, 14))


@kinds
def test_every_barrier_is_needed(compiled: dict[str, str], kind: str) -> None:
    """Without one of them the machine sees a race: with all of them there is none."""
    text = compiled[f"{kind} False"]
    barriers = [found.span() for found in re.finditer(r"bar\.sync\s+0;", text)]
    assert len(barriers) >= 4
    for begin, end in barriers:
        with pytest.raises(AssertionError, match="no barrier between"):
            count(text[:begin] + text[end:], draw(8192, kind), 14, False)


@kinds
@shared_or_not
def test_threads_do_not_wait_for_each_other_while_they_count(compiled: dict[str, str], kind: str, shared: bool) -> None:
    code, labels = parse(compiled[f"{kind} {shared}"])
    jumps = [(labels[step.operands[0]], number) for number, step in enumerate(code) if step.name == "bra"]
    loops = [code[start:end] for start, end in jumps if start < end]
    adding = [loop for loop in loops if any(step.name == "red.shared.add.u32" for step in loop)]
    assert adding, "there is a loop that counts"
    assert not [step for loop in adding for step in loop if step.name in ("bar.sync", "redux.sync.add.s32", "st.shared.b32")]


def test_the_machine_finds_races_and_what_it_does_not_know() -> None:
    lines = "\n{{\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, counted;\n{}\n}}\n"
    own = "shl.b32 %r3, %r1, 2; add.s32 %r3, %r3, %r2;"
    for body, message in (
        ("st.shared.u32 [%r2], %r1;", "written and was written"),
        (f"{own} st.shared.u32 [%r3], %r1; ld.shared.u32 %r4, [%r2];", "read and was written"),
        (f"{own} ld.shared.u32 %r4, [%r2]; st.shared.u32 [%r3], %r1;", "written and was read"),
        ("red.shared.add.u32 [%r2], %r1; ld.shared.u32 %r4, [%r2];", "read and was added"),
        ("setp.lt.u32 %p1, %r1, 3; @%p1 bar.sync 0;", "only some threads"),
        ("ld.shared.u32 %r4, [%r2+2];", "no multiple"),
    ):
        with pytest.raises(AssertionError, match=message):
            run(lines.format(body), 1, 64, Memory(), [])
    with pytest.raises(NotImplementedError, match=r"mul\.hi\.s32"):
        run(lines.format("mul.hi.s32 %r3, %r1, %r1;"), 1, 64, Memory(), [])
    fine = "st.shared.u32 [%r3], %r1; bar.sync 0; red.shared.add.u32 [%r2], 1;"
    run(lines.format(f"{own} {fine}"), 1, 64, Memory(), [])
