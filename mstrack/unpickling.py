"""An unpickler that runs nothing.

A pickle is a program that may call any function. This one knows a short list of names. Tensors are described, not built;
classes of other people's code (training settings, statistics) become inert stand-ins that ignore their state; a program that
calls anything else is refused before the call.
"""

import pickle
import sys
from typing import IO, Any, NamedTuple

import torch

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_INERT = {
    "__builtin__": "bool bytearray complex dict float frozenset int list long object set slice str tuple unicode xrange",
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple",
    "_codecs": "encode",
    "argparse": "Namespace",
    "collections": "Counter defaultdict deque",
    "datetime": "date datetime time timedelta timezone",
    "numpy": "bool_ dtype float16 float32 float64 int8 int16 int32 int64 ndarray uint8",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.multiarray": "_reconstruct scalar",
    "pathlib": "Path PosixPath PurePosixPath PureWindowsPath WindowsPath",
    "torch": "Size bfloat16 bool device float16 float32 float64 int16 int32 int64 int8 uint8",
    "types": "SimpleNamespace",
}
"""Plain data besides tensors that settings and statistics hold. The program may "call" these: the stand-in does nothing."""


class RefusedError(Exception):
    """The pickle would do something else than describe tensors."""


class _StandInType(type):
    """The type of stand-ins: makes calling one a refusal, unless it stands for plain data (`inert`)."""

    inert: bool

    def __call__(cls, *args: object, **kwargs: object) -> object:
        if not cls.inert:
            raise RefusedError(f"call {cls.__module__}.{cls.__qualname__}")
        return super().__call__()


class _StandIn(metaclass=_StandInType):
    """Takes the place of an object that is not a tensor; ignores whatever it is given."""

    __slots__ = ()
    inert = False

    def __new__(cls, *args: object, **kwargs: object) -> "_StandIn":
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass


def _stand_in(module: str, name: str, inert: bool) -> type:
    """A stand-in class under the name of the original."""
    namespace = {"__slots__": (), "__module__": module, "inert": inert}
    return _StandInType(name, (_StandIn,), namespace)


class _Dict(dict[Any, Any]):
    """An ordered dict of the file, less the attributes torch hangs on it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _StorageType(NamedTuple):
    dtype: torch.dtype


class Storage(NamedTuple):
    """A run of numbers in the file: which one, and the part of it from `start`."""

    key: str
    dtype: torch.dtype
    start: int


class Description(NamedTuple):
    """A tensor that has not been read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _DescribeTensor:
    """In place of torch's functions that rebuild a tensor from a storage. Without a `__dict__`: the file cannot change it."""

    __slots__ = ()

    def __call__(self, storage: object, offset: int, shape: list[int], stride: list[int], *rest: object) -> Description:
        if not isinstance(storage, Storage):
            raise RefusedError("build a tensor from something else than numbers")
        return Description(storage, int(offset), tuple(int(n) for n in shape), tuple(int(n) for n in stride))


class _DescribeParameter:
    """In place of torch's function that wraps a tensor as a parameter."""

    __slots__ = ()

    def __call__(self, data: object, *rest: object) -> object:
        return data


class _Reconstruct:
    """In place of the function behind objects of pickle protocols 0 and 1."""

    __slots__ = ()

    def __call__(self, cls: Any, base: object, state: object) -> object:
        if not (isinstance(cls, type) and issubclass(cls, _StandIn)):
            raise RefusedError(f"build {cls!r}")
        return _StandIn.__new__(cls)


_KNOWN: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): _Dict,
    ("copy_reg", "_reconstructor"): _Reconstruct(),
    ("copyreg", "_reconstructor"): _Reconstruct(),
    ("torch._utils", "_rebuild_parameter"): _DescribeParameter(),
    ("torch._utils", "_rebuild_tensor"): _DescribeTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _DescribeTensor(),
    **{(module, name): _StorageType(dtype) for module in ("torch", "torch.cuda") for name, dtype in _DTYPES.items()},
}


class RestrictedUnpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, text, `Description`s and stand-ins; raises `RefusedError` for anything else."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.item_sizes: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the file; never an import."""
        known = _KNOWN.get((module, name))
        if known is not None:
            return known
        inert = name in _INERT.get(module, "").split()
        if not inert and (module.partition(".")[0] in sys.stdlib_module_names or module == "__builtin__"):
            raise RefusedError(f"use {module}.{name}")
        return _stand_in(module, name, inert)

    def persistent_load(self, pid: Any) -> Storage:
        """Note which numbers of the file a tensor refers to."""
        kind, storage, key, _, _, *view = pid
        if kind != "storage" or not isinstance(storage, _StorageType):
            raise RefusedError(f"load a {kind!r}")
        self.item_sizes[str(key)] = storage.dtype.itemsize
        start = int(view[0][1]) if view and view[0] is not None else 0
        return Storage(str(key), storage.dtype, start)
