"""A machine for the PTX that Triton makes of a kernel: what a GPU would compute, where there is none, and where it would race.

All threads of a program take each instruction together, in numpy, so that branches have to be uniform. What another order of
the threads would change is found by bookkeeping: two warps that touch a byte of shared memory between two barriers, one of them
writing and not both atomically, are an error; threads of one warp, and global memory, are not looked at. It knows the
instructions that `kernels.count` becomes, as NVIDIA's manual (Parallel Thread Execution ISA 8.7) has them, and refuses others.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LANES = 32
SHARED = 1 << 16
COUNTED = 1 << 14
"""Bytes of shared memory, and where Triton's own part of it begins, behind what the kernel declares."""

Values = NDArray[Any]
Integers = NDArray[np.int64]
Active = NDArray[np.bool_]

TYPES = {f"{sign}{8 * size}": np.dtype(f"{letter}{size}") for size in (1, 2, 4, 8) for sign, letter in ("bu", "si", "uu")}


class Instruction(NamedTuple):
    """`@guard name operands`, where a guard that begins with ! is not to hold."""

    guard: str
    name: str
    operands: list[str]


def parse(text: str) -> tuple[list[Instruction], dict[str, int]]:
    """The instructions of the only kernel, and before which of them each label stands."""
    body = text[text.index("\n{") + 2 : text.index("\n}")]
    body = re.sub(r"//.*|^\s*\.(loc|pragma)\b.*", "", body, flags=re.MULTILINE)
    code: list[Instruction] = []
    labels: dict[str, int] = {}
    for statement in body.split(";"):
        rest = statement.strip()
        while found := re.match(r"(?:}|(\$\w+):)\s*", rest):
            labels[found[1] or "}"] = len(code)
            rest = rest[found.end() :]
        if rest and not re.match(r"{?\s*\.(reg|shared)\b", rest):
            guard, name, operands = re.fullmatch(r"(?:@(!?[%\w]+)\s+)?([\w.]+)\s*(.*)", rest, re.DOTALL).groups(default="")
            code.append(Instruction(guard, name, re.findall(r"{[^}]*}|\[[^]]*\]|[^,\s{}\[\]]+", operands)))
    return code, labels


class Memory:
    """Global memory, of which a program gets addresses."""

    def __init__(self, size: int = 1 << 22) -> None:
        self.bytes = np.zeros(size, np.uint8)
        self._used = 4096  # nothing lies at 0

    def place(self, array: Values) -> int:
        """Copy an array there; its address is a multiple of 16."""
        address = self._used
        self._used += -(-array.nbytes // 16) * 16
        self.bytes[address : address + array.nbytes] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        return address

    def read(self, address: int, like: Values) -> Values:
        """What lies there now."""
        return self.bytes[address : address + like.nbytes].view(like.dtype).reshape(like.shape).copy()


AGAINST = {"read": ("written", "added"), "written": ("read", "written", "added"), "added": ("read", "written")}
"""What another warp must not have done to a byte that is touched so."""


class Races:
    """Who has touched each byte of shared memory since the last barrier: nobody, one warp, or several."""

    NOBODY, SEVERAL = -1, -2

    def __init__(self) -> None:
        self.barrier()

    def barrier(self) -> None:
        self._by = {way: np.full(SHARED, self.NOBODY) for way in AGAINST}

    def touch(self, way: str, addresses: Integers, warps: Integers) -> None:
        """Bytes, and who touches them, in one instruction."""
        touched, times = np.unique(np.unique(addresses * 64 + warps) // 64, return_counts=True)
        several = np.isin(addresses, touched[times > 1])
        for other in AGAINST[way]:
            before = self._by[other][addresses]
            race = (before != self.NOBODY) & (before != warps) | several & (other == way)
            assert not race.any(), f"byte {addresses[race][:1]} of shared memory is {way} and was {other}, no barrier between"
        before = self._by[way][addresses]
        alone = ~several & ((before == self.NOBODY) | (before == warps))
        self._by[way][addresses] = np.where(alone, warps, self.SEVERAL)


def run(text: str, blocks: int, threads: int, memory: Memory, parameters: Sequence[int]) -> None:
    """Launch a kernel.

    Args:
        text: Its PTX.
        blocks: Programs, which run one after the other.
        threads: Of each.
        parameters: Addresses of `memory`.
    """
    for block in range(blocks):
        Program(text, block, threads, memory, parameters).run()


class Program:
    """One program of a launch; see `run`."""

    def __init__(self, text: str, block: int, threads: int, memory: Memory, parameters: Sequence[int]) -> None:
        self._code, self._labels = parse(text)
        self._parameters = parameters
        self._spaces = {"global": memory.bytes, "shared": np.full(SHARED, 0xAB, np.uint8)}  # nothing is zero by itself
        self._races = Races()
        self._threads = np.arange(threads)
        known = {"%ctaid.x": block, "%tid.x": self._threads, "counted": 0, "global_smem": COUNTED}
        self._registers = {name: np.broadcast_to(value, threads).astype(np.uint64) for name, value in known.items()}

    def run(self) -> None:
        place = 0
        while place < len(self._code):
            guard, name, operands = self._code[place]
            active = np.ones(len(self._threads), bool)
            if guard:
                active = self._read(guard.lstrip("!"), "pred") ^ guard.startswith("!")
            place += 1
            if name == "ret":
                return
            if name in ("bra", "bra.uni"):
                assert active.all() or not active.any(), "a branch that only some threads take"
                place = self._labels[operands[0]] if active.all() else place
            elif name == "bar.sync":
                assert active.all(), "a barrier that only some threads reach"
                self._races.barrier()
            elif found := re.match(r"(ld|st|red|atom)\.(global|shared)\.", name):
                self._access(*found.groups(), name, operands, active)
            else:
                self._write(operands[0], self._compute(name, *operands), active)

    # ------------------------------------------------------------ registers
    def _read(self, operand: str, kind: str) -> Values:
        """Values of an operand in all threads, as numbers of a type."""
        if re.fullmatch(r"-?(0x[0-9A-Fa-f]+|\d+)", operand):
            value = np.full(len(self._threads), int(operand, 0) % (1 << 64), np.uint64)
        else:
            value = self._registers[operand]
        if kind == "pred":
            return value.astype(bool)
        if kind == "bf16":
            return (value.astype(np.uint32) << np.uint32(16)).view(np.float32)
        if kind == "f16":
            return value.astype(np.uint16).view(np.float16).astype(np.float32)
        return value.astype(f"u{TYPES[kind].itemsize}").view(TYPES[kind])

    def _write(self, target: str, value: Values, active: Active) -> None:
        """Keep the bits of values: in one register, or in two their halves."""
        bits = value.astype(np.uint64) if value.dtype == bool else value.view(f"u{value.itemsize}").astype(np.uint64)
        half = np.uint64(4 * value.itemsize)
        for number, name in enumerate(_names(target)):
            part = bits
            if target.startswith("{"):
                part = bits >> half * np.uint64(number) & (np.uint64(1) << half) - np.uint64(1)
            self._registers[name] = np.where(active, part, self._registers.get(name, np.uint64(0)))

    def _compute(self, name: str, target: str, *sources: str) -> Values:
        operation, _, kind = name.rpartition(".")
        read = [lambda kind, source=source: self._read(source, kind) for source in sources]
        if name == "ld.param.b64":
            return np.full(len(self._threads), self._parameters[int(re.search(r"_param_(\d+)\]", sources[0])[1])], np.uint64)
        if operation == "mov" and sources[0].startswith("{"):
            half = 4 * TYPES[kind].itemsize
            low, high = (self._read(source, f"u{half}").astype(TYPES[kind]) for source in _names(sources[0]))
            return low | _shift(np.left_shift, high, np.uint64(half))
        if operation.startswith("cvt."):
            values, to = read[0](kind), operation.removeprefix("cvt.")
            return values.astype(np.float32 if to == "f32" else TYPES[to])
        if name in ABSOLUTES:
            mask = ABSOLUTES[name]
            return read[0](f"u{8 * mask.itemsize}") & ~mask
        if operation in LANEWISE:
            lanes = read[0](kind).reshape(-1, LANES)
            return np.broadcast_to(LANEWISE[operation](lanes, *sources[1:]), lanes.shape).reshape(-1).astype(lanes.dtype)
        if operation == "selp":
            return np.where(read[2]("pred"), read[0](kind), read[1](kind))
        if operation in ("shl", "shr"):
            return _shift(np.left_shift if operation == "shl" else np.right_shift, read[0](kind), read[1]("u32"))
        if operation == "bfe" and kind[0] == "u":
            mask = (np.uint64(1) << read[2]("u32").astype(np.uint64)) - np.uint64(1)
            return _shift(np.right_shift, read[0](kind), read[1]("u32")) & mask.astype(TYPES[kind])
        if operation in ("mul.wide", "mad.wide"):
            wide = kind[0] + str(16 * TYPES[kind].itemsize)
            product = read[0](kind).astype(TYPES[wide]) * read[1](kind).astype(TYPES[wide])
            return product if operation == "mul.wide" else product + read[2](wide)
        if operation not in OPERATIONS:
            raise NotImplementedError(f"{name} is not among the instructions that this machine knows")
        with np.errstate(over="ignore"):
            return OPERATIONS[operation](*(value(kind) for value in read))

    # ------------------------------------------------------------ memory
    def _access(self, way: str, space: str, name: str, operands: list[str], active: Active) -> None:
        place, words = operands[-2:] if way != "ld" else reversed(operands)
        kind, names = name.rpartition(".")[2], _names(words)
        base, offset = re.fullmatch(r"\[\s*([%\w]+)\s*(?:\+\s*(-?\d+)\s*)?\]", place).groups(default="0")
        addresses = (self._read(base, "u64" if space == "global" else "u32").astype(np.int64) + int(offset))[active]
        memory = self._spaces[space].view(TYPES[kind])
        size = memory.itemsize * len(names)
        assert not (addresses % size).any(), f"{name} of {size} bytes at an address that is no multiple of it"
        assert (addresses >= 0).all(), f"{name} before the beginning of memory"
        if space == "shared":
            touched = (addresses[:, None] + np.arange(size)).reshape(-1)
            done = {"ld": "read", "st": "written"}.get(way, "added")
            self._races.touch(done, touched, np.repeat(self._threads[active] // LANES, size))
        for number, register in enumerate(names):
            index = addresses // memory.itemsize + number
            if way == "ld":
                found = np.zeros(len(self._threads), memory.dtype)
                found[active] = memory[index]
                self._write(register, found, active)
            elif way == "st":
                memory[index] = self._read(register, kind)[active]
            else:
                assert ".add." in name, f"{name} is not among the instructions that this machine knows"
                np.add.at(memory, index, self._read(register, kind)[active])


OPERATIONS: dict[str, Callable[..., Values]] = {
    "mov": lambda a: a, "add": np.add, "sub": np.subtract, "mul.lo": np.multiply, "mad.lo": lambda a, b, c: a * b + c,
    "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "setp.eq": np.equal, "setp.ne": np.not_equal, "setp.lt": np.less, "setp.le": np.less_equal, "setp.gt": np.greater,
    "setp.ge": np.greater_equal,
}  # fmt: skip
SIGN, SIGNS = np.uint16(1 << 15), np.uint32(0x80008000)
ABSOLUTES = {"abs.f16": SIGN, "abs.bf16": SIGN, "abs.f16x2": SIGNS, "abs.bf16x2": SIGNS}
LANEWISE: dict[str, Callable[..., Values]] = {
    "redux.sync.add": lambda lanes, mask: lanes.sum(1, keepdims=True),
    "redux.sync.max": lambda lanes, mask: lanes.max(1, keepdims=True),
    "shfl.sync.bfly": lambda lanes, distance, clamp, mask: lanes[:, np.arange(LANES) ^ int(distance, 0)],
}


def _shift(by: Callable[..., Values], value: Values, amount: Values) -> Values:
    """Shifts by all bits and more leave nothing, or the sign."""
    bits = 8 * value.itemsize
    shifted = by(value, np.minimum(amount, bits - 1).astype(value.dtype))
    return np.where(amount < bits, shifted, shifted if value.dtype.kind == "i" else value.dtype.type(0)).astype(value.dtype)


def _names(operand: str) -> list[str]:
    return re.findall(r"[^\s,{}]+", operand)
