"""SDSTrack against numbers of the published code, a slow and obvious version, and the laws of its training."""

import json
import math
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_models import inputs, on_meta, published_keys, scramble, slow_norm, slow_patches
from test_training import assert_same, environment, recipe, weights
from torch import Tensor

from mstrack import checkpoint, create_model
from mstrack.assembly import build_model
from mstrack.config import load_config
from mstrack.errors import UserError
from mstrack.losses import tracking_losses
from mstrack.models.cost import count_flops, count_parameters
from mstrack.models.elimination import centre_token
from mstrack.models.remap import identify
from mstrack.models.sdstrack import AdapterBlock, SDSTrack, hide
from mstrack.training import train
from mstrack.tuning import FullFineTuning, TunedAdamW

GROUPS = {"norm.*": 0.1, "embed_aux.*": 1.0, "blocks.*.aux.*": 1.0, "blocks.*.cross.*": 1.0, "*": 0.0}
"""The published optimizer groups as a pattern table."""

SMALL = {"width": 24, "heads": 3, "head_channels": 32}


# ---------------------------------------------------------------- numbers of the published code
GOLDEN = {
    "score": [0.5910696704522707, 0.07798300009390738],
    "size": [0.5831578497527516, 0.216971053068679],
    "offset": [0.0017669975359240198, 0.11319825491479617],
    "tokens": [-0.0030248325096906116, 0.8112738363070292],
    "first_scores": [0.56314838, 0.46168533, 0.52598345, 0.62526035, 0.58363624, 0.54242571, 0.56212264, 0.47243516],
    "last_tokens": [-0.86807575, 1.31290638, -1.27874565, -0.34138754, -0.32404017, -0.03091166, 0.71271646, 0.23049831],
    "boxes": [[0.75057393, 0.75110406, 0.51387352, 0.81271070], [0.15320136, 0.16337995, 0.14279990, 0.89779669]],
    "removed": [
        [[73, 212, 25, 119, 166, 88], [246, 142, 33, 159, 228, 77]],
        [[188, 72, 192, 197, 7, 189], [71, 57, 220, 43, 131, 188]],
        [[40, 167, 214, 139, 4, 216], [254, 250, 230, 138, 89, 193]],
    ],
    "losses": {"total": 72.55357361, "whole": 88.82653046, "masked": 91.03561401, "distance": 10.50529289, "iou": 0.42720655},
    "gradients": {
        "norm.weight": 18.998119513606987,
        "embed_aux.weight": 39.10786174426296,
        "blocks.2.aux.attn.fc1.weight": 4.048515158724086,
        "blocks.9.cross.mlp.fc2.weight": 1.9596661004169849,
    },
    "gradient": 65.8304722803916,
}
"""Of github.com/hoqolo/SDSTrack, commit 822d985, on CPU in float32, with 24 channels, 3 heads and a head of 16 channels.

Weights and inputs are those of `drawn`. Maps and tokens: mean and deviation. `removed`: the first 6 tokens that the auxiliary
stream drops. Losses: of its training actor, with stochastic depth off and `hidden` given. Gradients: norms, the last of all.
"""


def drawn(name: str, *shape: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)


def drawn_weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """By the published name of an entry."""
    n = drawn(key, *shape)
    if key.endswith("running_var"):
        n = 1 + 0.1 * np.abs(n)
    elif len(shape) == 1:
        n = 0.02 * n + key.endswith("weight")
    elif "pos_embed" in key or "cls_token" in key:
        n = 0.2 * n
    else:
        n = (1.5 if len(shape) == 4 else 1.0) * n / math.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.float32(n))


def published_name(name: str) -> str:
    """What the published code calls an entry of ours."""
    module, _, rest = name.partition(".")
    if module == "head":
        tower, stage, *part = rest.split(".")
        names = f"box_head.conv{int(stage) + 1}_{tower.replace('score', 'ctr')}."
        return names + ".".join(part).replace("conv.", "0.").replace("norm.", "1.")
    for stream, theirs in (("aux", "X_DTE"), ("cross", "X_X_DTE")):
        for part, place in (("attn", "Space"), ("mlp", "MLP")):
            rest = rest.replace(f".{stream}.{part}.", f".{place}_{theirs}_Adapter.D_")
    plain = {
        "position_template": "pos_embed_z",
        "position_search": "pos_embed_x",
        "embed": "patch_embed.proj",
        "embed_aux": "patch_embed_multimodal.proj",
    }
    return f"backbone.{plain.get(module, module)}.{rest}".rstrip(".")


def publish(model: SDSTrack) -> dict[str, Tensor]:
    """A checkpoint of that model under published names, with what the published forward never reads."""
    shapes = {published_name(name): tuple(value.shape) for name, value in model.state_dict().items()}
    unread = {"cls_token": 1, "pos_embed": 197, "pos_embed_z_z_dte": 128, "pos_embed_x_x_dte": 512}
    shapes |= {f"backbone.{name}": (1, rows, model.width) for name, rows in unread.items()}
    counter = "num_batches_tracked"
    return {key: torch.tensor(0) if key.endswith(counter) else drawn_weight(key, shape) for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def golden_model() -> SDSTrack:
    model = create_model("sdstrack-b256", width=24, heads=3, head_channels=16)
    assert isinstance(model, SDSTrack)
    checkpoint.fill(model, model.remap(publish(model)))
    return model.eval()


def golden_inputs() -> tuple[Tensor, Tensor]:
    template, search = drawn("template", 2, 6, 128, 128), drawn("search", 2, 6, 256, 256)
    return tuple(torch.from_numpy(np.float32(x)).view(2, 2, 3, *x.shape[2:]) for x in (template, search))


def test_forward_gives_the_published_numbers(golden_model: SDSTrack) -> None:
    template, search = golden_inputs()
    tokens, found = golden_model.features(template, search), golden_model(template, search)
    for name, value in (("score", found.score), ("size", found.size), ("offset", found.offset), ("tokens", tokens)):
        x = value.detach().double()
        np.testing.assert_allclose([x.mean(), x.std(correction=0)], GOLDEN[name], rtol=0, atol=2e-6, err_msg=name)
    for value, name in ((found.score.flatten()[:8], "first_scores"), (tokens.flatten()[-8:], "last_tokens")):
        np.testing.assert_allclose(value.detach(), GOLDEN[name], rtol=0, atol=2e-5)
    np.testing.assert_allclose(found.boxes.detach(), GOLDEN["boxes"], rtol=0, atol=1e-5)
    assert [layer[:, :6].tolist() for layer in golden_model.removed] == GOLDEN["removed"]
    assert [layer.shape[1] for layer in golden_model.removed] == [256 - 180, 180 - 126, 126 - 89]


def test_masked_self_distillation_gives_the_published_losses(golden_model: SDSTrack, monkeypatch: pytest.MonkeyPatch) -> None:
    uniform = np.random.Generator(np.random.PCG64(zlib.crc32(b"hidden"))).random((2, 2, 320))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.from_numpy(uniform))
    boxes = torch.tensor([[0.5, 0.4, 0.4, 0.5], [0.1, 0.0, 0.2, 0.5]])
    golden_model.zero_grad()
    terms = golden_model.training_loss(golden_model, *golden_inputs(), partial(tracking_losses, boxes=boxes))
    for name, value in GOLDEN["losses"].items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5), name
    terms["total"].backward()
    gradients = {name: p.grad.double().norm() for name, p in golden_model.named_parameters() if p.grad is not None}
    for name, value in GOLDEN["gradients"].items():
        assert gradients[name].item() == pytest.approx(value, rel=1e-4), name
    assert torch.stack(list(gradients.values())).norm().item() == pytest.approx(GOLDEN["gradient"], rel=1e-4)
    trains = {name for name, p in golden_model.named_parameters() if p.requires_grad}
    idle = {name for name in trains for layer in (0, 1, 2, 4, 5, 7, 8, 10) if name.startswith(f"blocks.{layer}.cross.")}
    assert gradients.keys() == trains - idle


# ---------------------------------------------------------------- slow and obvious
def slow_mlp(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    hidden = x @ state[f"{name}.fc1.weight"].T + state[f"{name}.fc1.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return hidden @ state[f"{name}.fc2.weight"].T + state[f"{name}.fc2.bias"]


def slow_attention(state: dict[str, Tensor], block: str, x: Tensor, heads: int, blocked: Tensor) -> tuple[Tensor, Tensor]:
    """What the attention gives (N x width) with the blocked pairs left out, and its maps (heads x N x N)."""
    normed = slow_norm(x, state[f"{block}.norm1.weight"], state[f"{block}.norm1.bias"])
    query, key, value = (normed @ state[f"{block}.attn.qkv.weight"].T + state[f"{block}.attn.qkv.bias"]).chunk(3, dim=1)
    mixed, maps = [], []
    for q, k, v in zip(query.chunk(heads, 1), key.chunk(heads, 1), value.chunk(heads, 1), strict=True):
        logits = (q @ k.T / math.sqrt(q.shape[1])).masked_fill(blocked, -math.inf)
        maps.append(logits.softmax(dim=1))
        mixed.append(maps[-1] @ v)
    joined = torch.cat(mixed, dim=1) @ state[f"{block}.attn.proj.weight"].T + state[f"{block}.attn.proj.bias"]
    return joined, torch.stack(maps)


def slow_features(
    model: SDSTrack, template: Tensor, search: Tensor, hidden: Tensor
) -> tuple[Tensor, list[list[list[int]]], list[Tensor]]:
    """One pair: tokens, what each stream dropped (RGB, auxiliary; layer by layer), and the tokens after each exchange."""
    state, heads = model.state_dict(), model.blocks[0].attn.heads
    streams, nz = [], model.position_template.shape[1]
    for modality, embed in enumerate(("embed", "embed_aux")):
        weight, bias = state[f"{embed}.weight"], state[f"{embed}.bias"]
        patches = torch.cat([slow_patches(image[modality], weight, bias) for image in (template, search)])
        patches[hidden[modality]] = 0.0
        z, x = patches[:nz] + state["position_template"][0], patches[nz:] + state["position_search"][0]
        if "temporal_template" in state:
            z, x = z + state["temporal_template"][0], x + state["temporal_search"][0]
        streams.append(torch.cat((z, x)))
    kept = [list(range(len(x))) for _ in streams]
    dropped: list[list[list[int]]] = [[], []]
    exchanged = []
    for layer in range(model.depth):
        block = f"blocks.{layer}"
        norm2 = partial(slow_norm, weight=state[f"{block}.norm2.weight"], bias=state[f"{block}.norm2.bias"])
        for modality, adapters in enumerate((None, f"{block}.aux")):
            tokens = streams[modality]
            attended, maps = slow_attention(
                state, block, tokens, heads, torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
            )
            tokens = tokens + attended + (0 if adapters is None else slow_mlp(state, f"{adapters}.attn", attended))
            if layer in model.eliminating:
                row = maps[:, centre_token(nz), nz:].mean(dim=0).tolist()
                order = sorted(range(len(row)), key=lambda i: -row[i])
                stay = math.ceil(0.7 * len(row))
                tokens = torch.cat((tokens[:nz], tokens[nz:][order[:stay]]))
                dropped[modality].append([kept[modality][i] for i in order[stay:]])
                kept[modality] = [kept[modality][i] for i in order[:stay]]
            normed = norm2(tokens)
            beside = 0 if adapters is None else 0.5 * slow_mlp(state, f"{adapters}.mlp", normed)
            streams[modality] = tokens + slow_mlp(state, f"{block}.mlp", normed) + beside
        if layer in model.cross_layers:
            both = torch.cat(streams)
            aux = torch.arange(len(both)) >= len(streams[0])
            attended, _ = slow_attention(state, block, both, heads, aux[:, None] == aux)
            both = both + attended + slow_mlp(state, f"{block}.cross.attn", attended)
            normed = norm2(both)
            both = both + slow_mlp(state, f"{block}.mlp", normed) + 0.5 * slow_mlp(state, f"{block}.cross.mlp", normed)
            streams = [both[~aux], both[aux]]
            exchanged.append(both)
    whole = torch.zeros(2, nz + model.position_search.shape[1], model.width, dtype=search.dtype)
    for modality, tokens in enumerate(streams):
        whole[modality, :nz] = tokens[:nz]
        whole[modality, [nz + place for place in kept[modality]]] = tokens[nz:]
    return slow_norm(whole.mean(dim=0), state["norm.weight"], state["norm.bias"]), dropped, exchanged


@pytest.mark.parametrize("elimination", [False, True])
@pytest.mark.parametrize("droptrack", [False, True])
def test_both_passes_equal_a_slow_and_obvious_one(elimination: bool, droptrack: bool) -> None:
    model = scramble(create_model("sdstrack-tiny", elimination=elimination, droptrack=droptrack, **SMALL)).double()
    assert isinstance(model, SDSTrack)
    template, search = (images.double() for images in inputs(model))
    hidden = torch.rand(2, 2, 16 + 64, generator=torch.Generator().manual_seed(1)) < 0.4
    tokens = model.features(template, search)
    branches = model(template, search, hidden)
    distances = []
    for item in range(2):
        expected, _, exchanged = slow_features(model, template[item], search[item], torch.zeros_like(hidden[item]))
        torch.testing.assert_close(tokens[item], expected, rtol=0, atol=1e-9)
        masked, dropped, masked_exchanged = slow_features(model, template[item], search[item], hidden[item])
        assert [layer[2 + item].tolist() for layer in model.removed_rgb] == dropped[0]
        assert [layer[2 + item].tolist() for layer in model.removed] == dropped[1]
        distances.append([(a - b).square().mean() for a, b in zip(exchanged, masked_exchanged, strict=True)])
        for branch, features in ((branches.whole, expected), (branches.masked, masked)):
            for found, wanted in zip(branch, model.head(features[None, 16:]), strict=True):
                torch.testing.assert_close(found[[item]], wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(branches.distance.double(), torch.tensor(distances).mean().double(), rtol=1e-5, atol=0)
    assert len(model.removed) == len(model.removed_rgb) == 3 * elimination


# ---------------------------------------------------------------- what is hidden, and what the loss is made of
def test_hidden_tokens_have_the_published_share_and_never_a_patch_in_both() -> None:
    torch.manual_seed(0)
    hidden = hide(64, 320, torch.device("cpu"))
    assert hidden.shape == (64, 2, 320)
    assert hidden.float().mean((0, 2)).tolist() == pytest.approx([0.3, 0.7 * 0.3], abs=0.01)
    assert not hidden.all(dim=1).any()
    torch.manual_seed(0)
    assert torch.equal(hide(64, 320, torch.device("cpu")), hidden)


def test_nothing_hidden_is_no_distance_and_a_hidden_pair_is_two_positions() -> None:
    model = scramble(create_model("sdstrack-tiny", **SMALL))
    template, search = inputs(model)
    branches = model(template, search, torch.zeros(2, 2, 80, dtype=torch.bool))
    assert branches.distance == 0
    torch.testing.assert_close(branches.whole, branches.masked, rtol=0, atol=0)
    torch.testing.assert_close(branches.whole, model(template, search), rtol=0, atol=1e-6)
    blind = model(template, search, torch.ones(2, 2, 80, dtype=torch.bool))
    torch.testing.assert_close(blind.masked.score[0], blind.masked.score[1], rtol=0, atol=1e-5)
    assert (blind.whole.score - blind.masked.score).abs().max() > 1e-3
    assert blind.distance > 1e-3


def test_the_training_loss_is_its_weighted_terms_and_draws_anew() -> None:
    model = scramble(create_model("sdstrack-tiny", drop_path=0.3, **SMALL)).train()
    boxes = torch.tensor([[0.4, 0.4, 0.2, 0.3], [0.1, 0.3, 0.4, 0.2]])
    step = partial(model.training_loss, model, *inputs(model), partial(tracking_losses, boxes=boxes))
    torch.manual_seed(7)
    first, second = step(), step()
    torch.manual_seed(7)
    assert_same(first, step())
    assert first["masked"] != second["masked"]
    expected = 0.6 * first["whole"] + 0.2 * first["masked"] + 0.1 * first["distance"]
    assert first["total"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert set(first) == {"total", "focal", "giou", "l1", "iou", "whole", "masked", "distance"}
    parts = first["focal"] + 2 * first["giou"] + 5 * first["l1"]
    assert first["whole"].item() == pytest.approx(parts.item(), rel=1e-6)


def test_autocast_keeps_the_distance_and_the_maps_in_float32() -> None:
    model = scramble(create_model("sdstrack-tiny", **SMALL))
    template, search = inputs(model)
    hidden = torch.rand(2, 2, 80, generator=torch.Generator().manual_seed(1)) < 0.3
    exact = model(template, search, hidden)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(template, search, hidden)
    assert all(m.dtype == torch.float32 for m in (*rough.whole, *rough.masked, rough.distance))
    assert rough.distance.item() == pytest.approx(exact.distance.item(), rel=0.1)


def test_stochastic_depth_spares_the_mlp_of_rgb_tokens() -> None:
    torch.manual_seed(0)
    block = AdapterBlock(24, 3, drop_path=0.9).train()
    tokens = torch.randn(64, 5, 24)
    changed = {
        "rgb mlp": block.transform(tokens, None),
        "aux mlp": block.transform(tokens, block.aux),
        "rgb attention": block.mix(tokens, tokens.flip(1), None),
        "aux attention": block.mix(tokens, tokens.flip(1), block.aux),
    }
    moved = {name: int((after != tokens).any(dim=2).any(dim=1).sum()) for name, after in changed.items()}
    assert moved.pop("rgb mlp") == 64
    assert all(0 < count < 20 for count in moved.values())


# ---------------------------------------------------------------- counts and groups, as published
def test_counts_are_the_published_ones() -> None:
    for name, kwargs, gigaflops in (("sdstrack-b256", {}, 108.7), ("sdstrack-b384", {"droptrack": True}, 244.2)):
        model = on_meta(name, **kwargs)
        parameters = count_parameters(model)
        assert parameters.trainable == 14_793_984
        assert round(count_flops(model).weights / 1e9, 1) == gigaflops
        named = dict(model.named_parameters())
        idle = sum(p.numel() for n, p in named.items() if ".cross." in n and int(n.split(".")[1]) not in (3, 6, 9, 11))
        norms = sum(p.numel() for n, p in named.items() if "norm" in n and not n.startswith("head."))
        assert round((parameters.total - parameters.positions - idle - norms) / 1e6, 1) == 102.1
    assert count_parameters(on_meta("sdstrack-b256")).published == 107_802_501


def test_what_trains_and_how_fast_is_as_published(shared: Path) -> None:
    groups = json.loads((shared / "golden" / "sdstrack256_params.json").read_text())["groups"]
    model = on_meta("sdstrack-b256")
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    optimizer = TunedAdamW(model.named_parameters(), FullFineTuning(), lr=1e-4, patterns=list(GROUPS.items()), fused=False)
    found = {group["lr"]: (len(group["params"]), sum(p.numel() for p in group["params"])) for group in optimizer.param_groups}
    expected = {group["lr"]: (group["n_tensors"], group["n_params"]) for group in groups}
    assert {round(lr, 9): counts for lr, counts in found.items()} == expected
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trains


def test_new_parts_start_as_published() -> None:
    """Adapters normal with deviation 0.02 and biases 0, which is not the identity; the embedding as torch has convolutions."""
    torch.manual_seed(0)
    model = create_model("sdstrack-tiny")
    adapters = {name: p for name, p in model.named_parameters() if ".aux." in name or ".cross." in name}
    assert len(adapters) == 4 * 16
    spread = torch.cat([p.flatten() for name, p in adapters.items() if name.endswith("weight")])
    assert spread.std().item() == pytest.approx(0.02, rel=0.02)
    assert 0.06 < spread.abs().max() < 0.12
    assert all((p == 0).all() for name, p in adapters.items() if name.endswith("bias"))
    bound = (3 * 8 * 8) ** -0.5
    for name, least in (("weight", 0.99), ("bias", 0.8)):
        largest = getattr(model.embed_aux, name).abs().max().item()
        assert least * bound < largest <= bound


# ---------------------------------------------------------------- checkpoints
def test_every_published_entry_is_read_or_known_to_be_unread(shared: Path) -> None:
    state = published_keys(shared, "sdstrack256")
    model = on_meta("sdstrack-b256")
    expected = {k: v.shape for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert {k: v.shape for k, v in model.remap(state).items()} == expected
    assert identify(state) == ("sdstrack-b256", {})
    assert state.keys() == {published_name(name) for name in model.state_dict()} | {
        f"backbone.{name}" for name in ("cls_token", "pos_embed", "pos_embed_z_z_dte", "pos_embed_x_x_dte")
    }
    state |= {f"backbone.temporal_pos_embed_{which}": torch.empty(1, 1, 768, device="meta") for which in "zx"}
    assert identify(state) == ("sdstrack-b256", {"droptrack": True})


def test_a_one_stream_checkpoint_leaves_the_adapters_at_their_start(tmp_path: Path, shared: Path) -> None:
    one = scramble(create_model("ostrack-tiny", droptrack=True, **SMALL))
    checkpoint.save(tmp_path / "one.safetensors", one, {})
    torch.manual_seed(3)
    two = create_model("sdstrack-tiny", droptrack=True, **SMALL)
    before = {name: value.clone() for name, value in two.state_dict().items()}
    checkpoint.load_into(two, tmp_path / "one.safetensors")
    new = 0
    for name, value in two.state_dict().items():
        fresh = name.startswith("embed_aux.") or ".aux." in name or ".cross." in name
        assert torch.equal(value, before[name] if fresh else one.state_dict()[name]), name
        new += fresh
    assert new == 2 + 4 * 16
    renamed = on_meta("sdstrack-b256").remap(published_keys(shared, "ostrack256"))
    expected = {k for k in on_meta("sdstrack-b256").state_dict() if not k.endswith("num_batches_tracked")}
    assert renamed.keys() == expected


def test_published_and_own_checkpoints_come_back(tmp_path: Path, golden_model: SDSTrack) -> None:
    torch.save({"net": publish(golden_model)}, tmp_path / "SDSTrack_ep0050.pth.tar")
    arguments: dict[str, Any] = {"width": 24, "heads": 3, "head_channels": 16}
    with pytest.raises(UserError, match="give one of"):
        checkpoint.load(tmp_path / "SDSTrack_ep0050.pth.tar")
    model = checkpoint.load(tmp_path / "SDSTrack_ep0050.pth.tar", "sdstrack-b256", **arguments)
    assert_same(model.state_dict(), golden_model.state_dict())
    checkpoint.save(tmp_path / "own.safetensors", model, {})
    again = checkpoint.load(tmp_path / "own.safetensors")
    assert again.name == "sdstrack-b256"
    assert_same(again.state_dict(), golden_model.state_dict())
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in golden_model.parameters()]
    with pytest.raises(UserError, match="SDSTrack"):
        create_model("ostrack-tiny", **SMALL).remap(model.state_dict())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"cross_layers": [1, 4]}, "expected ascending layers from 0 to 3"),
        ({"depth": 3, "cross_layers": [1]}, "depth of at least 4"),
        ({"eliminatoin": False}, "Did you mean 'elimination'"),
    ],
)
def test_bad_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model("sdstrack-tiny", **kwargs)


# ---------------------------------------------------------------- the loop
def small_recipe(tmp_path: Path) -> dict[str, Any]:
    changed = recipe(tmp_path)
    changed["model"] = {"name": "sdstrack-tiny", "arguments": {"width": 32, "heads": 2, "drop_path": 0.1}}
    changed["tuning"] = {"name": "full"}
    return changed


def test_an_interrupted_run_ends_bit_identical_and_what_is_frozen_stays(tmp_path: Path) -> None:
    whole = train(small_recipe(tmp_path), [f"run.out={tmp_path / 'whole'}"])
    out = tmp_path / "pieces"
    for steps in (2, 5, 100):
        calls = iter(range(1, 100))
        train(small_recipe(tmp_path), [f"run.out={out}"], interrupted=lambda last=steps, calls=calls: next(calls) == last)
    after = weights(out)
    assert_same(weights(whole.parent), after)
    torch.manual_seed(0)
    model = build_model(load_config(small_recipe(tmp_path)))
    read = {name for name, p in model.named_parameters() if p.requires_grad and not name.startswith("blocks.0.cross.")}
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, after[name])}
    assert moved == read
    terms = json.loads((out / "log.jsonl").read_text().splitlines()[0])
    assert {"train/whole", "train/masked", "train/distance"} <= terms.keys()


def test_two_processes_train_and_leave_what_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(json.dumps(small_recipe(tmp_path)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    short = ["train.accumulate=2", "train.epochs=1", "train.samples=12", "train.val_samples=0", "train.val_clips=0"]
    line = ["-m", "mstrack", "train", str(tmp_path / "recipe.yaml"), *short]
    done = subprocess.run([*torchrun, *line], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    torch.manual_seed(0)
    start, after = build_model(load_config(small_recipe(tmp_path))).state_dict(), weights(tmp_path / "run")
    idle = [name for name in start if name.startswith("blocks.0.cross.")]
    assert len(idle) == 8
    assert all(torch.equal(start[name], after[name]) for name in idle)
    assert not torch.equal(start["blocks.1.cross.mlp.fc2.weight"], after["blocks.1.cross.mlp.fc2.weight"])
