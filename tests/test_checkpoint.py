import argparse
import collections
import importlib
import io
import json
import math
import os
import pathlib
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mstrack import checkpoint
from mstrack.errors import UserError
from mstrack.models import Network, create_model
from mstrack.published import MAGIC, read_published
from mstrack.tensorfile import read_tensors, write_tensors

SMALL: dict[str, Any] = {"width": 24, "heads": 3, "head_channels": 8}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) and one[k].dtype == two[k].dtype for k in one)


def small(name: str, seed: int = 0, **kwargs: Any) -> Network:
    torch.manual_seed(seed)
    return create_model(name, **SMALL, **kwargs)


# ---------------------------------------------------------------- our own files
@pytest.mark.parametrize(
    ("name", "kwargs"), [("ostrack-tiny", {"elimination": True}), ("mst-tiny", {"droptrack": True, "cross_layers": (0, 2)})]
)
def test_a_checkpoint_needs_nothing_but_itself(tmp_path: Path, name: str, kwargs: dict[str, Any]) -> None:
    model = small(name, drop_path=0.1, **kwargs)
    path = tmp_path / "new" / "model.safetensors"
    provenance = {"command": "mst train", "seed": 3, "scores": {"SR": 57.5}, "data": ["synthetic/train"]}
    checkpoint.save(path, model, provenance)
    loaded = checkpoint.load(path)
    assert same(loaded.state_dict(), model.state_dict())
    assert (loaded.name, loaded.provenance, loaded.training) == (name, provenance, False)
    assert loaded.search_factor == model.search_factor
    assert all(p.requires_grad for p in loaded.parameters())
    again = tmp_path / "again.safetensors"
    checkpoint.save(again, loaded, loaded.provenance)
    assert again.read_bytes() == path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_other_safetensors_readers_agree(tmp_path: Path) -> None:
    model = small("mst-tiny")
    checkpoint.save(tmp_path / "m.safetensors", model, {})
    assert same(load_file(tmp_path / "m.safetensors"), model.state_dict())
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        geometry = json.loads(file.metadata()["geometry"])
    expected = [32, 64, 2.0, 4.0, 8, 2]
    assert list(geometry.values()) == expected
    assert (tmp_path / "m.safetensors").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_the_bits_half_the_file(tmp_path: Path, dtype: torch.dtype) -> None:
    model = small("mst-tiny")
    checkpoint.save(tmp_path / "whole.safetensors", model, {})
    checkpoint.save(tmp_path / "half.safetensors", model, {}, dtype=dtype)
    loaded = checkpoint.load(tmp_path / "half.safetensors")
    for key, value in model.state_dict().items():
        assert loaded.state_dict()[key].dtype == value.dtype
        assert torch.equal(loaded.state_dict()[key], value.to(dtype).to(value.dtype))
    sizes = [len(load_bytes(tmp_path / f"{name}.safetensors")) for name in ("whole", "half")]
    assert sizes[1] < 0.51 * sizes[0]


def load_bytes(path: Path) -> bytes:
    """The numbers of a safetensors file, without its header."""
    data = path.read_bytes()
    return data[8 + struct.unpack("<Q", data[:8])[0] :]


def test_a_dual_stream_starts_from_our_one_stream(tmp_path: Path) -> None:
    one = small("ostrack-tiny")
    checkpoint.save(tmp_path / "one.safetensors", one, {})
    two = small("mst-tiny", seed=1)
    checkpoint.load_into(two, tmp_path / "one.safetensors")
    other = checkpoint.load(tmp_path / "one.safetensors", "mst-tiny", **SMALL)
    for model in (two, other):
        state = model.state_dict()
        assert same(state | {k: v for k, v in one.state_dict().items() if k in state}, state)
        for key, value in one.blocks.state_dict().items():
            assert torch.equal(state[f"blocks_rgb.{key}"], value)
            assert torch.equal(state[f"blocks_aux.{key}"], value)
        assert torch.equal(state["cross.1.attn.qkv.weight"], one.blocks[3].attn.qkv.weight)
        with torch.no_grad():
            model.blocks_rgb[1].attn.qkv.weight.zero_()
        assert torch.equal(model.blocks_aux[1].attn.qkv.weight, one.blocks[1].attn.qkv.weight)


def test_arguments_of_the_caller_win(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "m.safetensors", small("ostrack-tiny"), {})
    model = checkpoint.load(tmp_path / "m.safetensors", elimination=True, search_factor=3)
    assert model.eliminating == (1, 2, 3)
    assert (model.search_factor, model.arguments) == (3.0, {**SMALL, "elimination": True, "search_factor": 3})


def test_positions_are_resized_on_request_only(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "m.safetensors", small("ostrack-tiny"), {})
    larger = small("ostrack-tiny", seed=1, search_size=96)
    with pytest.raises(UserError, match=r"position_search \(1 x 64 x 24, expected 1 x 144 x 24\)"):
        checkpoint.load_into(larger, tmp_path / "m.safetensors")
    checkpoint.load_into(larger, tmp_path / "m.safetensors", resize_positions=True)
    before = checkpoint.load(tmp_path / "m.safetensors")
    assert torch.equal(larger.position_template, before.position_template)
    grids = [model.position_search.detach()[0].view(side, side, 24) for model, side in ((larger, 12), (before, 8))]
    torch.testing.assert_close(grids[0].mean((0, 1)), grids[1].mean((0, 1)), rtol=0, atol=2e-3)


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    model = small("ostrack-tiny")
    checkpoint.save(tmp_path / "m.safetensors", model, {})
    state = model.state_dict()
    for message, change in {
        "1 missing: norm.bias": {"norm.bias": None},
        "2 surplus: extra.one, extra.two": {"extra.one": torch.ones(1), "extra.two": torch.ones(1)},
        "norm.bias (25, expected 24)": {"norm.bias": torch.ones(25)},
    }.items():
        changed = {key: value for key, value in (state | change).items() if value is not None}
        with pytest.raises(UserError) as error:
            checkpoint.fill(small("ostrack-tiny", seed=1), changed)
        assert message in str(error.value)
        assert "model 'ostrack-tiny'" in str(error.value)
    with pytest.raises(UserError, match=r"m\.safetensors \(model 'ostrack-tiny'\).*'mst-tiny'.*24 missing: blocks_rgb\.4"):
        checkpoint.load_into(small("mst-tiny", cross_layers=(1, 3), depth=5), tmp_path / "m.safetensors")
    checkpoint.save(tmp_path / "two.safetensors", small("mst-tiny"), {})
    with pytest.raises(UserError, match=r"two\.safetensors \(model 'mst-tiny'\).*dual-stream"):
        checkpoint.load(tmp_path / "two.safetensors", "ostrack-tiny")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError):
        checkpoint.load_into(model, tmp_path / "two.safetensors")
    assert same(model.state_dict(), before)


def test_a_name_that_is_nowhere_and_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint file no/such"):
        checkpoint.load("no/such")
    checkpoint.save(tmp_path / "m.safetensors", small("ostrack-tiny"), {})
    whole = (tmp_path / "m.safetensors").read_bytes()
    for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "part.safetensors").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"part\.safetensors"):
            checkpoint.load(tmp_path / "part.safetensors")
    save_file({"blocks.0.norm1.weight": torch.ones(3)}, tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="does not say which model"):
        checkpoint.load(tmp_path / "plain.safetensors")
    checkpoint.save_state(tmp_path / "state.safetensors", {"step": 1})
    with pytest.raises(UserError, match="mstrack state 1"):
        checkpoint.load(tmp_path / "state.safetensors")
    with pytest.raises(UserError, match="mstrack model 1"):
        checkpoint.load_state(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("name", None, "does not say what it is"),
        ("arguments", "{", "does not say what it is"),
        ("arguments", "[1]", "in a wrong form"),
        ("arguments", '{"depth": "x"}', "depth='x'"),
        ("provenance", "7", "in a wrong form"),
        ("provenance", '{"config": {"data": {"train": 3}}}', "in a wrong form"),
        ("provenance", '{"config": {"data": {"modality": 3}}}', "in a wrong form"),
    ],
)
def test_a_header_that_is_wrong_is_an_error_with_the_name_of_the_file(
    tmp_path: Path, key: str, value: str | None, says: str
) -> None:
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, small("mst-tiny"), {})
    metadata, tensors = read_tensors(path)
    metadata = {**metadata, key: value or ""}
    if value is None:
        metadata.pop(key)
    write_tensors(path, tensors, metadata)
    with pytest.raises(UserError, match=f"m.safetensors.*{says}"):
        checkpoint.load(path)


def test_a_checkpoint_cannot_name_code_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata of a stranger's file would else be a way to call any function."""
    (tmp_path / "intruder.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = small("ostrack-tiny")
    model.name = "intruder:build"
    checkpoint.save(tmp_path / "m.safetensors", model, {})
    with pytest.raises(UserError, match="outside the catalogue"):
        checkpoint.load(tmp_path / "m.safetensors")
    assert "intruder" not in sys.modules
    mine = "mstrack.models.ostrack:ostrack_tiny"
    model.name = mine
    checkpoint.save(tmp_path / "m.safetensors", model, {})
    assert same(checkpoint.load(tmp_path / "m.safetensors", mine).state_dict(), model.state_dict())


def test_shipped_weights_go_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    checkpoint.save(tmp_path / "mst-tiny-thermal.safetensors", small("mst-tiny"), {"seed": 1})
    assert checkpoint.load("mst-tiny-thermal").provenance == {"seed": 1}
    with pytest.raises(UserError, match="Did you mean 'mst-tiny-thermal'"):
        checkpoint.load("mst-tiny-termal")


# ---------------------------------------------------------------- the state of a run
def test_state_comes_back_bit_for_bit_and_type_for_type(tmp_path: Path) -> None:
    model = small("ostrack-tiny")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.randn(1, 1, 3, 32, 32), torch.randn(1, 1, 3, 64, 64)).score.sum().backward()
    optimizer.step()
    whole = torch.randn(4, 6)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "step": 12,
        "big": 2**70,
        "best": 0.1 + 0.2,
        "worst": -math.inf,
        "name": 'a "quoted" ünïcode',
        "none": None,
        "flag": True,
        "nested": {"list": [1, (2.5, "x", [])], 3: {"empty": {}}, 1.5: "float"},
        "views": [whole[:2], whole[1:], whole.T, whole[0, 0], torch.empty(0, 3)],
        "types": [
            torch.ones(3).to(t) for t in (torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool, torch.uint8)
        ],
    }
    checkpoint.save_state(tmp_path / "state.safetensors", state)
    back = checkpoint.load_state(tmp_path / "state.safetensors")
    assert alike(back, dict(state, model=dict(state["model"])))
    fresh = torch.optim.AdamW(small("ostrack-tiny").parameters(), lr=1)
    fresh.load_state_dict(back["optimizer"])
    assert alike(fresh.state_dict(), optimizer.state_dict())


def alike(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(two, Tensor) and one.dtype == two.dtype and one.shape == two.shape and torch.equal(one, two)
    if isinstance(one, dict):
        return type(one) is type(two) and list(one) == list(two) and all(alike(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(alike, one, two))
    return type(one) is type(two) and one == two


def test_state_refuses_what_it_could_not_bring_back(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot hold a set"):
        checkpoint.save_state(tmp_path / "state.safetensors", {"a": {1, 2}})
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- disks that fill and processes that die
LIMITED = """
import resource, signal, sys
import torch
from mstrack import checkpoint
from mstrack.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
try:
    checkpoint.save_state(sys.argv[1], {"step": 2, "numbers": torch.ones(100000)})
except UserError as error:
    print(error)
"""


def test_a_disk_without_room_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    checkpoint.save_state(path, {"step": 1})
    told = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True).stdout
    assert f"{path} cannot be written: File too large. What was there before is intact" in told
    assert checkpoint.load_state(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


ENDLESS = """
import sys
import torch
from mstrack import checkpoint
step = 0
while True:
    step += 1
    checkpoint.save_state(sys.argv[1], {"step": step, "numbers": torch.full((500_000,), float(step))})
"""


def test_several_writers_of_a_file_leave_that_of_one(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    writers = [subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)]) for _ in range(2)]
    try:
        steps = set()
        deadline = time.monotonic() + 60
        while len(steps) < 20 and time.monotonic() < deadline:
            if path.exists():
                state = checkpoint.load_state(path)
                assert (state["numbers"] == state["step"]).all()
                steps.add(state["step"])
        assert len(steps) == 20
        assert [writer.poll() for writer in writers] == [None, None]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()


def test_kill_9_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    for wait in (0.0, 0.013, 0.027):
        path.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)])
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        state = checkpoint.load_state(path)
        assert (state["numbers"] == state["step"]).all()


# ---------------------------------------------------------------- published files
class Settings:
    """What the published training code pickles beside the weights: an object of a class that a reader does not have."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.env = argparse.Namespace(path=pathlib.PurePosixPath("somewhere"))
        self.seen = {1, 2}
        self.mean = np.float64(0.5)
        self.array = np.arange(3)
        self.counts = collections.defaultdict(list, a=[1])
        self.tensor = torch.ones(2)


class Config(dict):  # type: ignore[type-arg]
    """A dict with attributes, as configuration packages have."""


def published_checkpoint() -> dict[str, Any]:
    whole = torch.arange(24.0)
    net = OrderedDict(
        plain=torch.randn(3, 4),
        parameter=torch.nn.Parameter(torch.randn(5)),
        transposed=torch.randn(3, 4).T,
        view=whole.view(4, 6)[1:3, ::2],
        shared=whole,
        scalar=torch.tensor(3),
        half=torch.randn(3).half(),
        brain=torch.randn(3).bfloat16(),
        double=torch.randn(2, 2, dtype=torch.float64),
        bool=torch.tensor([True, False]),
        bytes=torch.tensor([1, 255], dtype=torch.uint8),
        empty=torch.empty(0, 3),
    )
    net._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]
    settings = Settings()
    return {
        "epoch": 300,
        "actor_type": "OSTrackActor",
        "net": net,
        "optimizer": {"state": {0: {"step": 1, "exp_avg": torch.randn(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "stats": OrderedDict(train=settings, config=Config(a=settings)),
        "settings": settings,
        "complex": 1 + 2j,
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_published_files_are_read_as_torch_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool, protocol: int
) -> None:
    path = tmp_path / "OSTrack_ep0300.pth.tar"
    torch.save(published_checkpoint(), path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    expected = torch.load(path, weights_only=False)["net"]
    monkeypatch.delattr(sys.modules[__name__], "Settings")  # the reader does not have the class
    monkeypatch.delattr(sys.modules[__name__], "Config")
    found = read_published(path)
    assert same(found, {key: value.detach() for key, value in expected.items()})
    assert all(value.is_contiguous() and not value.requires_grad for value in found.values())
    assert len({v.untyped_storage().data_ptr() for v in found.values() if v.numel()}) == len(found) - 1


@pytest.mark.parametrize("key", ["model", "state_dict", None])
def test_other_ways_to_hold_a_state_dict(tmp_path: Path, key: str | None) -> None:
    weights = {"module.a": torch.randn(2), "module.b": torch.randn(3)}
    torch.save({key: weights, "epoch": 3} if key else weights, tmp_path / "m.pth")
    assert same(read_published(tmp_path / "m.pth"), {"a": weights["module.a"], "b": weights["module.b"]})


@pytest.mark.parametrize("zipped", [True, False])
def test_parts_of_a_file_and_other_files_are_no_checkpoints(tmp_path: Path, zipped: bool) -> None:
    torch.save({"net": {"a": torch.randn(100)}}, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole.pth").read_bytes()
    part = tmp_path / "part.pth"
    for length in (0, 3, 60, len(whole) // 2, len(whole) - 5):
        part.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"part\.pth is no checkpoint"):
            read_published(part)
    torch.save({"epoch": 3}, tmp_path / "empty.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="holds no weights, only epoch"):
        read_published(tmp_path / "empty.pth")


def test_a_tensor_cannot_claim_more_than_its_numbers(tmp_path: Path) -> None:
    """A few bytes must not become terabytes, nor a view reach outside the file's numbers."""
    for shape, stride, offset in (((10**12,), (0,), 0), ((5,), (1,), 0), ((4,), (1,), 1), ((2,), (1,), -1), ((2,), (-1,), 1)):
        torch.save({"net": {"a": Forged(shape, stride, offset)}}, tmp_path / "forged.pth")
        with pytest.raises(UserError, match=r"forged\.pth is no checkpoint"):
            read_published(tmp_path / "forged.pth")


class Forged:
    """Pickles as a tensor of four numbers, seen as the attacker likes."""

    def __init__(self, *layout: Any) -> None:
        self.layout = layout

    def __reduce__(self) -> tuple[Any, ...]:
        shape, stride, offset = self.layout
        storage = torch.storage.TypedStorage(wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True)
        return torch._utils._rebuild_tensor_v2, (storage, offset, shape, stride, False, OrderedDict())


# ---------------------------------------------------------------- published files that bite
class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def attacks(marker: Path) -> dict[str, Any]:
    """Objects whose unpickling by Python creates `marker`."""
    touch, create = f"touch '{marker}'", f"open({str(marker)!r}, 'w').close()"
    rebuild = torch._utils._rebuild_tensor_v2
    return {
        "os.system": Call(os.system, touch),
        "builtins.eval": Call(eval, create.replace(".close()", "")),
        "builtins.exec": Call(exec, create),
        "subprocess": Call(subprocess.check_call, ["touch", str(marker)]),
        "open": Call(open, str(marker), "w"),
        "shutil": Call(shutil.copy, __file__, str(marker)),
        "pathlib": Call(pathlib.Path.touch, Call(pathlib.Path, str(marker))),
        "import": Call(getattr, Call(importlib.import_module, "os"), "system"),
        "nested in the arguments of a tensor": Call(rebuild, Call(os.system, touch), 0, (1,), (1,), False, OrderedDict()),
        "nested in settings": {"net": {"a": torch.ones(1)}, "settings": [{"deep": Call(os.system, touch)}]},
        "as a key": {"net": {"a": torch.ones(1)}, Call(os.system, touch): 1},
        "pickle in a pickle": Call(pickle.loads, pickle.dumps(Call(os.system, touch))),
        "torch.load": Call(torch.load, io.BytesIO(b"")),
        "a function of somebody's package": Call(np.save, str(marker), 1),
    }


NAMES = sorted(attacks(Path("marker")))


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("attack", NAMES)
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, form: str, attack: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / "weights.pth.tar"
    payload = attacks(marker)[attack]
    if form == "bare":
        path.write_bytes(pickle.dumps(payload, protocol=2))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=form == "zip")
    for read in (read_published, checkpoint.load, lambda p: checkpoint.convert(p, tmp_path / "out.safetensors")):
        with pytest.raises(UserError, match=r"weights\.pth\.tar (is refused: it would|is no checkpoint)"):
            read(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["weights.pth.tar"]


def test_these_attacks_would_bite_without_the_guard(tmp_path: Path) -> None:
    """Else the test above could pass for nothing."""
    for index, name in enumerate(NAMES):
        if name in ("import", "torch.load", "nested in the arguments of a tensor"):
            continue
        marker, path = tmp_path / f"marker{index}.npy", tmp_path / "weights.pth"
        torch.save(attacks(marker)[name], path)
        torch.load(path, weights_only=False)
        assert marker.exists(), name


@pytest.mark.parametrize(
    "program",
    [
        b"(S'touch MARKER'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch MARKER'\no.",  # OBJ
        b"cos\nsystem\n(S'touch MARKER'\ntR.",  # REDUCE
        b"cposix\nsystem\n(S'touch MARKER'\ntR.",
        b'c__builtin__\neval\n(S\'open("MARKER","w")\'\ntR.',
        b"cnt\nsystem\n(S'touch MARKER'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch MARKER\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x08builtins\x8c\x0deval.__call__\x93\x8c\x01a\x85R.",  # a dotted name
        b"\x80\x02cpkg.code\nrun\n(X\x01\x00\x00\x00atR.",  # a function that is nowhere
        b"\x80\x02cpkg.code\nRunner\n(X\x01\x00\x00\x00at\x81)R.",  # a stand-in, called
        b"\x80\x02ccollections\nOrderedDict\n}X\x08\x00\x00\x00__call__cos\nsystem\nsb.",  # attributes of a class
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__)s\x86b.",  # attributes of ours
        b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
        b"ccopy_reg\n_reconstructor\n(ccollections\nOrderedDict\nc__builtin__\nobject\nNtR.",
        b"(S'module'\nios\nsystem\nQ.",  # a persistent id
        b"\x80\x02(X\x06\x00\x00\x00modulecos\nsystem\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_hand_written_pickles_are_refused(tmp_path: Path, program: bytes, zipped: bool) -> None:
    marker, path = tmp_path / "marker", tmp_path / "weights.pth"
    program = program.replace(b"MARKER", str(marker).encode())
    if zipped:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", program)
    else:
        path.write_bytes(pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + program)
    with pytest.raises(UserError, match=r"weights\.pth (is refused|is no checkpoint)"):
        read_published(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["weights.pth"]


def test_what_is_refused_is_named(tmp_path: Path) -> None:
    torch.save({"net": {}, "hook": Call(os.system, "true")}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"refused: it would use posix\.system"):
        read_published(tmp_path / "weights.pth")
    torch.save({"net": {}, "hook": Call(np.save, "a", 1)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"refused: it would call numpy\.save"):
        read_published(tmp_path / "weights.pth")


# ---------------------------------------------------------------- conversion
THEIRS = {"blocks.": "backbone.blocks.", "embed.": "backbone.patch_embed.proj.", "norm.": "backbone.norm."}


def as_published(model: Network) -> dict[str, Tensor]:
    """A one-stream model's weights as OSTrack's training code writes them."""
    state = {
        "backbone.cls_token": torch.zeros(1, 1, model.width),
        "backbone.pos_embed": torch.zeros(1, 197, model.width),
        "backbone.pos_embed_z": model.position_template,
        "backbone.pos_embed_x": model.position_search,
    }
    if model.temporal_template is not None:
        state["backbone.temporal_pos_embed_z"] = model.temporal_template
        state["backbone.temporal_pos_embed_x"] = model.temporal_search
    for key, value in model.state_dict().items():
        if key.startswith("head."):
            _, tower, stage, *rest = key.split(".")
            tower = tower.replace("score", "ctr")
            parts = [*({"conv": "0", "norm": "1"}[rest[0]] if stage != "4" else ()), rest[-1]]
            state[".".join([f"box_head.conv{int(stage) + 1}_{tower}", *parts])] = value
        for ours, theirs in THEIRS.items():
            if key.startswith(ours):
                state[theirs + key.removeprefix(ours)] = value
    return state


def test_convert_then_load_is_the_published_model(tmp_path: Path) -> None:
    model = small("ostrack-tiny", droptrack=True)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value))
    torch.save({"net": as_published(model), "settings": Settings()}, tmp_path / "DropTrack.pth.tar")
    out = tmp_path / "droptrack.safetensors"
    checkpoint.convert(tmp_path / "DropTrack.pth.tar", out, "ostrack-tiny", **SMALL)
    loaded = checkpoint.load(out)
    counters = {key for key in model.state_dict() if key.endswith("num_batches_tracked")}
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items() if key not in counters)
    assert loaded.arguments == {"droptrack": True, **SMALL}
    assert loaded.provenance["source"] == "DropTrack.pth.tar"
    assert len(loaded.provenance["sha256"]) == 64
    for part in ("missing", "surplus"):
        net = as_published(model)
        if part == "missing":
            del net["backbone.blocks.2.mlp.fc1.bias"]
        else:
            net["backbone.attentive.weight"] = torch.ones(1)
        torch.save({"net": net}, tmp_path / "other.pth.tar")
        named = {"missing": r"1 missing: blocks\.2\.mlp\.fc1\.bias", "surplus": r"1 surplus: backbone\.attentive"}[part]
        with pytest.raises(UserError, match=named):
            checkpoint.load(tmp_path / "other.pth.tar", "ostrack-tiny", **SMALL)


def test_convert_says_what_it_cannot_do(tmp_path: Path) -> None:
    torch.save({"net": as_published(small("ostrack-tiny"))}, tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"should end in \.safetensors"):
        checkpoint.convert(tmp_path / "m.pth", tmp_path / "m.bin")
    with pytest.raises(UserError, match="does not say which model"):
        checkpoint.convert(tmp_path / "m.pth", tmp_path / "m.safetensors")
    torch.save({"net": {"fc.weight": torch.ones(1)}}, tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"begin with fc\.weight"):
        checkpoint.convert(tmp_path / "m.pth", tmp_path / "m.safetensors")
