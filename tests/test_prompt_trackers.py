"""ViPT, ProTrack and one-stream trackers on one of two modalities."""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_models import SMALL, inputs, on_meta, published_keys, scramble, slow_block, slow_mlp, slow_norm, slow_patches
from test_training import recipe
from torch import Tensor

from mstrack import checkpoint
from mstrack.assembly import pair_dataset, read_sources, set_mode
from mstrack.config import Config
from mstrack.data.images import depth_to_colour
from mstrack.data.sequence import Frame
from mstrack.description import PAPER, describe
from mstrack.errors import UserError
from mstrack.models import Network, create_model
from mstrack.models.blocks import normalise
from mstrack.models.cost import count_flops, count_parameters
from mstrack.models.elimination import centre_token
from mstrack.models.remap import identify
from mstrack.registry import MODELS
from mstrack.tracker import Tracker
from mstrack.training import train
from mstrack.tuning import FullFineTuning, TunedAdamW

PROMPTS = ("embed_aux.", "prompts.", "prompt_norms.")


# ---------------------------------------------------------------- ViPT against its published code
def published_shapes(model: Network) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a ViPT checkpoint of that size, written down from the published state dict."""
    width, hidden, patch = model.width, 8, model.stride
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.cls_token": (1, 1, width),
        "backbone.pos_embed_z": tuple(model.position_template.shape),
        "backbone.pos_embed_x": tuple(model.position_search.shape),
        "backbone.norm.weight": (width,),
        "backbone.norm.bias": (width,),
    }
    for embed in ("patch_embed", "patch_embed_prompt"):
        shapes |= {f"backbone.{embed}.proj.weight": (width, 3, patch, patch), f"backbone.{embed}.proj.bias": (width,)}
    layers = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for block in range(model.depth):
        for part, (out, into) in layers.items():
            shapes[f"backbone.blocks.{block}.{part}.weight"] = (out * width, into * width)
            shapes[f"backbone.blocks.{block}.{part}.bias"] = (out * width,)
        for norm in ("norm1", "norm2"):
            shapes |= {f"backbone.blocks.{block}.{norm}.{part}": (width,) for part in ("weight", "bias")}
    for prompt in range(model.depth if model.family == "vipt" else 1):
        shapes |= {f"backbone.prompt_norms.{prompt}.{part}": (width,) for part in ("weight", "bias")}
        for conv, out, into in (("conv0_0", hidden, width), ("conv0_1", hidden, width), ("conv1x1", width, hidden)):
            shapes[f"backbone.prompt_blocks.{prompt}.{conv}.weight"] = (out, into, 1, 1)
            shapes[f"backbone.prompt_blocks.{prompt}.{conv}.bias"] = (out,)
        shapes[f"backbone.prompt_blocks.{prompt}.fovea.smooth"] = (1,)
    for tower, maps in (("ctr", 1), ("offset", 2), ("size", 2)):
        widths = [width, 8, 4, 2, 1]
        for stage in range(1, 5):
            into, out = widths[stage - 1 : stage + 1]
            shapes |= {
                f"box_head.conv{stage}_{tower}.0.weight": (out, into, 3, 3),
                f"box_head.conv{stage}_{tower}.0.bias": (out,),
            }
            norm = ("weight", "bias", "running_mean", "running_var")
            shapes |= {f"box_head.conv{stage}_{tower}.1.{part}": (out,) for part in norm}
            shapes[f"box_head.conv{stage}_{tower}.1.num_batches_tracked"] = ()
        shapes |= {f"box_head.conv5_{tower}.weight": (maps, 1, 1, 1), f"box_head.conv5_{tower}.bias": (maps,)}
    return shapes


def wave(name: str, shape: tuple[int, ...]) -> Tensor:
    """The value of a published entry: a sine from a place that the CRC-32 of its name gives."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    sine = torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 1.7 + zlib.crc32(name.encode()) % 1000).view(shape)
    if name.endswith("fovea.smooth"):
        return (10 + sine).float()
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        return (1 + 0.3 * sine).float()
    if len(shape) < 2 or "pos_embed" in name:
        return (0.3 * sine).float()
    return (sine * 1.5 / math.sqrt(math.prod(shape[1:]))).float()


def published_weights(model: Network) -> dict[str, Tensor]:
    return {name: wave(name, shape) for name, shape in published_shapes(model).items()}


def crops(seed: int, side: int) -> Tensor:
    count = torch.arange(2 * 6 * side * side, dtype=torch.float64)
    return torch.sin(count * 0.37 + torch.sin(count * 0.011 + seed) * 3).view(2, 2, 3, side, side).float()


GOLDEN: list[tuple[str, bool, dict[str, Any]]] = [
    (
        "vipt-tiny",
        True,
        {
            "moments": [0.037312, 0.739475],
            "first": [0.887401, 1.743949, -0.400218, 1.750533],
            "last": [0.0, 0.0, 0.0, 0.0],
            "boxes": [[0.412844, 0.373658, 0.524105, 0.56691], [0.424011, 0.367152, 0.524105, 0.56691]],
            "scores": [0.697606, 0.710011],
            "removed": [
                [[14, 16, 50, 18, 48], [12, 14, 48, 16, 18]],
                [[37, 41, 61, 63, 59], [37, 43, 61, 59, 55]],
                [[54, 52, 0, 2, 4], [54, 52, 50, 0, 2]],
            ],
        },
    ),
    (
        "vipt-tiny",
        False,
        {
            "moments": [0.071373, 1.053708],
            "first": [0.887975, 1.740948, -0.399051, 1.747575],
            "last": [-1.00331, -0.323232, -1.373565, -0.138393],
            "boxes": [[0.02899, 0.128818, 0.524105, 0.56691], [0.027462, 0.129708, 0.524105, 0.56691]],
            "scores": [0.689842, 0.693405],
            "removed": [],
        },
    ),
    (
        "vipt-shallow-tiny",
        True,
        {
            "moments": [0.030526, 0.742468],
            "first": [0.060947, 1.373416, -0.606964, 2.43155],
            "last": [0.0, 0.0, 0.0, 0.0],
            "boxes": [[0.418658, 0.120271, 0.524105, 0.56691], [0.415742, 0.12197, 0.524105, 0.56691]],
            "scores": [0.695784, 0.691016],
            "removed": [
                [[6, 42, 8, 40, 38], [8, 44, 10, 42, 12]],
                [[39, 63, 61, 41, 59], [39, 63, 61, 43, 41]],
                [[54, 52, 50, 48, 46], [54, 52, 50, 48, 0]],
            ],
        },
    ),
    (
        "vipt-shallow-tiny",
        False,
        {
            "moments": [0.056817, 1.058632],
            "first": [0.061451, 1.371783, -0.605181, 2.425076],
            "last": [-1.183027, -0.005639, -0.668022, 0.437325],
            "boxes": [[0.049209, 0.742036, 0.524105, 0.56691], [0.050689, 0.741174, 0.524105, 0.56691]],
            "scores": [0.682012, 0.67903],
            "removed": [],
        },
    ),
]
"""What jiawen-zhu/ViPT (commit f49f301) makes of `published_weights` and `crops`: its VisionTransformerCE of 4 blocks, 3 heads,
width 24, patch 8, eliminating at blocks 1, 2, 3 by template token 5, and its CenterPredictor of 8 channels. Of each removed
row the first five."""


@pytest.mark.parametrize(("name", "elimination", "golden"), GOLDEN)
@torch.inference_mode()
def test_vipt_is_the_published_network(name: str, elimination: bool, golden: dict[str, Any]) -> None:
    model = create_model(name, elimination=elimination, **SMALL).eval()
    checkpoint.fill(model, model.remap(published_weights(model)))
    template, search = crops(1, 32), crops(2, 64)
    tokens, prediction = model.features(template, search).double(), model(template, search)
    near = {"rtol": 0, "atol": 5e-6}
    np.testing.assert_allclose([tokens.mean(), tokens.std(correction=0)], golden["moments"], **near)
    np.testing.assert_allclose(tokens.flatten()[:4], golden["first"], **near)
    np.testing.assert_allclose(tokens.flatten()[-4:], golden["last"], **near)
    np.testing.assert_allclose(prediction.boxes, golden["boxes"], **near)
    np.testing.assert_allclose(prediction.score.flatten(1).amax(1), golden["scores"], **near)
    assert [layer[:, :5].tolist() for layer in model.removed] == golden["removed"]
    assert [layer.shape[1] for layer in model.removed] == ([19, 13, 9] if elimination else [])


def slow_prompt(state: dict[str, Tensor], layer: int, tokens: Tensor, prompt: Tensor) -> Tensor:
    """One crop, N x width each, channel by channel."""
    get = {
        key.removeprefix(f"prompts.{layer}."): v.squeeze() for key, v in state.items() if key.startswith(f"prompts.{layer}.")
    }
    squeezed = tokens @ get["squeeze_tokens.weight"].T + get["squeeze_tokens.bias"]
    beside = prompt @ get["squeeze_prompt.weight"].T + get["squeeze_prompt.bias"]
    for channel in range(squeezed.shape[1]):
        column = squeezed[:, channel].clone()
        weights = (column * get["sharpness"] - (column * get["sharpness"]).max()).exp()
        squeezed[:, channel] = column * weights / weights.sum() + beside[:, channel]
    return squeezed @ get["expand.weight"].T + get["expand.bias"]


def slow_vipt(model: Network, template: Tensor, search: Tensor) -> tuple[Tensor, list[list[int]]]:
    """Tokens of one item, and what was dropped; search tokens are kept in a dictionary by their place."""
    state = model.state_dict()
    deep, layers = "prompts.1.sharpness" in state, model.eliminating

    def norm(which: int, x: Tensor) -> Tensor:
        return slow_norm(x, state[f"prompt_norms.{which}.weight"], state[f"prompt_norms.{which}.bias"])

    parts, prompts = [], []
    for crop, where in ((template, "template"), (search, "search")):
        rgb, aux = (
            slow_patches(crop[m], state[f"{e}.weight"], state[f"{e}.bias"]) for m, e in enumerate(("embed", "embed_aux"))
        )
        prompts.append(slow_prompt(state, 0, norm(0, rgb), norm(0, aux)))
        parts.append(rgb + prompts[-1] + state[f"position_{where}"][0])
        if f"temporal_{where}" in state:
            parts[-1] = parts[-1] + state[f"temporal_{where}"][0, 0]
    z, x = parts[0], dict(enumerate(parts[1]))
    dropped, places = [], len(x)
    for layer in range(model.depth):
        if deep and layer > 0:
            whole = torch.stack([x.get(place, torch.zeros_like(z[0])) for place in range(places)])
            prompts = [
                slow_prompt(state, layer, norm(layer - 1, tokens), norm(layer, prompt))
                for tokens, prompt in zip((z, whole), prompts, strict=True)
            ]
            z, x = z + prompts[0], {place: token + prompts[1][place] for place, token in x.items()}
        block = f"blocks.{layer}"
        tokens, attention = slow_block(state, block, torch.cat((z, torch.stack(list(x.values())))), model.blocks[0].attn.heads)
        if layer in layers:
            row = attention[:, centre_token(len(z)), len(z) :].mean(dim=0).tolist()
            order = sorted(range(len(x)), key=lambda i: -row[i])
            stay, kept = order[: math.ceil(0.7 * len(x))], list(x)
            dropped.append([kept[i] for i in order[len(stay) :]])
            tokens = torch.cat((tokens[: len(z)], tokens[len(z) :][stay]))
            x = {kept[i]: x[kept[i]] for i in stay}
        tokens = slow_mlp(state, block, tokens)
        z, x = tokens[: len(z)], dict(zip(x, tokens[len(z) :], strict=True))
    whole = torch.zeros(len(z) + places, z.shape[1], dtype=z.dtype)
    whole[: len(z)] = slow_norm(z, state["norm.weight"], state["norm.bias"])
    for place, token in x.items():
        whole[len(z) + place] = slow_norm(token, state["norm.weight"], state["norm.bias"])
    return whole, dropped


@pytest.mark.parametrize("name", ["vipt-tiny", "vipt-shallow-tiny"])
@pytest.mark.parametrize("elimination", [True, False])
@pytest.mark.parametrize("droptrack", [False, True])
@torch.inference_mode()
def test_vipt_equals_a_slow_and_obvious_one(name: str, elimination: bool, droptrack: bool) -> None:
    model = scramble(create_model(name, elimination=elimination, droptrack=droptrack, **SMALL)).double()
    template, search = (images.double() for images in inputs(model))
    tokens = model.features(template, search)
    for item in range(2):
        expected, dropped = slow_vipt(model, template[item], search[item])
        torch.testing.assert_close(tokens[item], expected, rtol=0, atol=1e-9)
        assert [layer[item].tolist() for layer in model.removed] == dropped


@pytest.mark.parametrize(
    ("keys", "name", "trainable", "total"),
    [("vipt_deep256", "vipt-b256", 839_628, 93_358_161), ("vipt_shaw256", "vipt-shallow-b256", 611_345, 93_129_878)],
)
def test_names_counts_and_what_trains_are_the_published_ones(
    shared: Path, keys: str, name: str, trainable: int, total: int
) -> None:
    model, published = on_meta(name), published_keys(shared, keys)
    renamed = model.remap(published)
    expected = {k: v.shape for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert {k: v.shape for k, v in renamed.items()} == expected
    assert identify(published) == (name, {})
    parameters = count_parameters(model)
    assert (parameters.trainable, parameters.published) == (trainable, total)
    told = json.loads((shared / "golden" / f"{keys}_params.json").read_text())
    assert (parameters.trainable, parameters.published) == (told["requires_grad_params"], told["total_params"])
    trained = {k: published[k] for k in published if "prompt" in k}
    (group,) = told["groups"]
    assert len(trained) == group["n_tensors"]
    assert {k for k, p in model.named_parameters() if p.requires_grad} == model.remap(trained).keys()


@pytest.mark.parametrize(
    ("name", "elimination", "gigaflops"),
    [
        ("vipt-b256", False, 58.6),
        ("vipt-b256", True, 43.5),
        ("vipt-b384", False, 131.8),
        ("vipt-shallow-b256", False, 58.4),
        ("protrack-b256", False, 58.1),
    ],
)
def test_operations(name: str, elimination: bool, gigaflops: float) -> None:
    """58.4 G are what the paper's Table 7 has for ProTrack, and 92.7 M parameters: those of a shallow ViPT."""
    model = on_meta(name, elimination=elimination)
    assert round(count_flops(model).weights / 1e9, 1) == gigaflops
    if name == "vipt-shallow-b256":
        parameters = count_parameters(model)
        assert round((parameters.total - parameters.positions) / 1e6, 1) == 92.7


# ---------------------------------------------------------------- ViPT's start, training and files
def test_fresh_prompts_have_the_published_spread() -> None:
    torch.manual_seed(0)
    model = create_model("vipt-tiny")
    embed, prompts = model.get_submodule("embed_aux"), model.get_submodule("prompts")
    bound = 1 / math.sqrt(3 * 8 * 8)
    assert 0.95 * bound < embed.weight.abs().max().item() <= bound
    assert 0 < embed.bias.abs().max().item() <= bound
    for name, value in prompts.named_parameters():
        if name.endswith("sharpness"):
            assert value.item() == 10
        elif name.endswith("weight"):
            xavier = math.sqrt(6 / sum(value.shape[:2]))
            assert 0.9 * xavier < value.abs().max().item() <= xavier
    for name, value in model.get_submodule("prompt_norms").named_parameters():
        assert (value == (1 if name.endswith("weight") else 0)).all()


@pytest.mark.parametrize("name", ["vipt-tiny", "vipt-shallow-tiny"])
def test_a_one_stream_checkpoint_fills_all_but_the_prompts(tmp_path: Path, name: str) -> None:
    one = scramble(create_model("ostrack-tiny", **SMALL))
    checkpoint.save(tmp_path / "one.safetensors", one, {})
    model = create_model(name, **SMALL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    checkpoint.load_into(model, tmp_path / "one.safetensors")
    torch.manual_seed(0)
    loaded = checkpoint.load(tmp_path / "one.safetensors", name, **SMALL)
    torch.manual_seed(0)
    start = create_model(name, **SMALL).state_dict()
    for key, value in model.state_dict().items():
        fresh = key.startswith(PROMPTS)
        assert torch.equal(value, before[key] if fresh else one.state_dict()[key])
        assert torch.equal(loaded.state_dict()[key], start[key] if fresh else one.state_dict()[key])
    assert {k for k, p in loaded.named_parameters() if p.requires_grad} == {k for k in before if k.startswith(PROMPTS)}


def test_a_vipt_checkpoint_is_whole_or_refused(tmp_path: Path) -> None:
    deep = scramble(create_model("vipt-tiny", **SMALL))
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, deep, {})
    loaded = checkpoint.load(path)
    assert all(torch.equal(value, deep.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert [k for k, p in loaded.named_parameters() if p.requires_grad != k.startswith(PROMPTS)] == []
    model = create_model("vipt-tiny", **SMALL)
    whole = deep.state_dict()
    for lost in ("prompts.2.expand.weight", "prompt_norms.3.bias", "embed_aux.weight", "blocks.1.norm1.bias"):
        with pytest.raises(UserError, match=f"1 missing: {lost}"):
            checkpoint.fill(model, model.remap({key: value for key, value in whole.items() if key != lost}))
    rest = {key: value for key, value in whole.items() if not key.startswith(("prompts.", "embed_aux."))}
    with pytest.raises(UserError, match=r"missing: embed_aux\.weight"):
        checkpoint.fill(model, model.remap(rest))
    with pytest.raises(UserError, match=r"deep ViPT; expected one of a shallow ViPT .* A model vipt-\* can hold it"):
        checkpoint.load(path, "vipt-shallow-tiny", **SMALL)
    with pytest.raises(UserError, match="deep ViPT"):
        checkpoint.load(path, "ostrack-tiny", **SMALL)


@pytest.mark.parametrize("name", ["vipt-tiny", "vipt-shallow-tiny"])
def test_a_published_file_converts(tmp_path: Path, name: str) -> None:
    expected = create_model(name, **SMALL).eval()
    checkpoint.fill(expected, expected.remap(published_weights(expected)))
    torch.save({"net": published_weights(expected), "epoch": 60}, tmp_path / "ViPTrack.pth.tar")
    checkpoint.convert(tmp_path / "ViPTrack.pth.tar", tmp_path / "out.safetensors", name, **SMALL)
    loaded = checkpoint.load(tmp_path / "out.safetensors")
    assert loaded.name == name
    assert loaded.provenance["family"] == name.removesuffix("-tiny")
    for one, two in zip(loaded(*inputs(loaded)), expected(*inputs(expected)), strict=True):
        assert torch.equal(one, two)


def test_training_moves_the_prompts_and_nothing_else() -> None:
    model = scramble(create_model("vipt-tiny", drop_path=0.1, **SMALL))
    optimizer = TunedAdamW(model.named_parameters(), FullFineTuning(), lr=1e-2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    set_mode(model)
    sum(m.square().sum() for m in model(*inputs(model))).backward()
    optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key in before if key.startswith(PROMPTS)}


def test_depth_as_the_published_weights_know_it_is_blue_where_near() -> None:
    """JET begins with blue; in BGR order that is the first channel, and red the last."""
    near_to_far = np.linspace(500, 1000, 64, dtype=np.uint16).reshape(8, 8)
    colour = depth_to_colour(near_to_far)
    assert colour[0, 0].tolist() == [128, 0, 0]
    assert colour[-1, -1].tolist() == [0, 0, 128]


# ---------------------------------------------------------------- ProTrack
@torch.inference_mode()
def test_protrack_is_the_rgb_tracker_on_the_mixture(tmp_path: Path) -> None:
    one = scramble(create_model("ostrack-tiny", **SMALL))
    checkpoint.save(tmp_path / "one.safetensors", one, {})
    images = [torch.randint(0, 256, (2, 2, 3, side, side)) for side in (32, 64)]
    pairs = [normalise(image) for image in images]
    for share, rounded in ((1.0, 1.0), (0.0, 0.0), (0.5, 0.5), (None, 0.95)):
        kwargs = SMALL if share is None else {**SMALL, "share": share}
        model = checkpoint.load(tmp_path / "one.safetensors", "protrack-tiny", **kwargs)
        mixed = [normalise(rounded * image[:, :1].double() + (1 - rounded) * image[:, 1:].double()) for image in images]
        for found, expected in zip(model(*pairs), one(*mixed), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    checkpoint.save(tmp_path / "mixture.safetensors", model, {})
    again = checkpoint.load(tmp_path / "mixture.safetensors", "ostrack-tiny", **SMALL)
    assert all(torch.equal(value, one.state_dict()[key]) for key, value in again.state_dict().items())


def test_protrack_trains_nothing() -> None:
    model = create_model("protrack-tiny", **SMALL)
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(UserError):
        TunedAdamW(model.named_parameters(), FullFineTuning(), lr=1e-3)


# ---------------------------------------------------------------- one modality alone
@torch.inference_mode()
def test_a_one_stream_tracker_on_the_auxiliary_image_alone() -> None:
    rgb = scramble(create_model("ostrack-tiny", elimination=True, droptrack=True, **SMALL))
    aux = create_model("ostrack-tiny", input="aux", elimination=True, droptrack=True, **SMALL).eval()
    checkpoint.fill(aux, aux.remap(rgb.state_dict()))
    assert (rgb.modalities, aux.modalities) == (1, 2)
    template, search = inputs(aux)
    found = aux(template, search)
    for one, two in zip(found, rgb(template[:, 1:], search[:, 1:]), strict=True):
        assert torch.equal(one, two)
    other = aux(template * torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), search)
    assert torch.equal(found.score, other.score)


def test_tracking_the_auxiliary_video_is_tracking_it_as_colour(tmp_path: Path) -> None:
    rgb = scramble(create_model("ostrack-tiny", **SMALL))
    checkpoint.save(tmp_path / "m.safetensors", rgb, {})
    aux = checkpoint.load(tmp_path / "m.safetensors", input="aux")
    generator = np.random.default_rng(0)
    colour, second = (generator.integers(0, 256, (4, 60, 80, 3), dtype=np.uint8) for _ in range(2))
    one, two = Tracker(rgb), Tracker(aux)
    one.init(Frame(second[0]), (20, 20, 16, 12))
    two.init(Frame(colour[0], second[0]), (20, 20, 16, 12))
    for index in range(1, 4):
        expected, found = one.update(Frame(second[index])), two.update(Frame(colour[index], second[index]))
        np.testing.assert_array_equal(found.box, expected.box)
        assert found.score == expected.score
    with pytest.raises(UserError, match="frame 4"):
        two.update(Frame(colour[0]))


@pytest.mark.parametrize(
    ("name", "arguments", "kept"),
    [("ostrack-tiny", {"input": "aux"}, {1.0}), ("ostrack-tiny", {}, {1.0}), ("vipt-tiny", {}, {0.0, 1.0})],
)
def test_the_only_input_is_never_dropped(tmp_path: Path, name: str, arguments: dict[str, str], kept: set[float]) -> None:
    told = recipe(tmp_path)
    told["model"] = {"name": name, "arguments": arguments}
    told["data"]["modality_dropout"] = 1.0
    config = Config.model_validate(told)
    network = on_meta(name, **arguments)
    pairs = pair_dataset(config, network, read_sources(config.data.train, config), seed=0, training=True)
    keep = pairs[(0, list(range(8)))].keep
    assert keep.shape[0] == 8
    assert keep.shape[-1] == network.modalities
    assert set(keep.flatten().tolist()) == kept


@pytest.mark.parametrize(
    ("name", "arguments", "trained"),
    [("ostrack-tiny", {"input": "aux"}, ("blocks.",)), ("vipt-tiny", {}, PROMPTS), ("vipt-shallow-tiny", {}, PROMPTS)],
)
def test_a_run_from_a_one_stream_checkpoint(
    tmp_path: Path, name: str, arguments: dict[str, Any], trained: tuple[str, ...]
) -> None:
    one = scramble(create_model("ostrack-tiny", **SMALL))
    checkpoint.save(tmp_path / "one.safetensors", one, {})
    told = recipe(tmp_path, epochs=1, samples=8)
    told["model"] = {"name": name, "arguments": {**SMALL, **arguments}, "weights": str(tmp_path / "one.safetensors")}
    told["tuning"] = {"name": "full", "parameters": {"blocks.*": 1, "*": 0} if name == "ostrack-tiny" else None}
    train(Config.model_validate(told))
    loaded = checkpoint.load(tmp_path / "run" / "model.safetensors")
    assert (loaded.name, loaded.arguments) == (name, told["model"]["arguments"])
    for key, value in loaded.state_dict().items():
        if key in one.state_dict():
            assert torch.equal(value, one.state_dict()[key]) != key.startswith(trained), key
    assert loaded.reads == ((1,) if arguments else (0, 1))


# ---------------------------------------------------------------- what users see
@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("ostrack-tiny", {"input": "depth"}, "unknown input of a one-stream tracker 'depth'. Known: aux, rgb"),
        ("ostrack-tiny", {"input": "auxx"}, "Did you mean 'aux'"),
        ("vipt-tiny", {"input": "aux"}, "unknown argument of model 'vipt-tiny' 'input'"),
        ("vipt-tiny", {"prompt_width": 0}, "prompt_width=0"),
        ("vipt-tiny", {"depth": 3}, "elimination=True needs a depth of at least 4"),
        ("protrack-tiny", {"share": 1.5}, "share=1.5: expected the share of the RGB image"),
        ("protrack-tiny", {"shares": 0.5}, "Did you mean 'share'"),
    ],
)
def test_bad_arguments_are_named(name: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        create_model(name, **kwargs)
    assert message in str(error.value)


def test_descriptions_say_what_trains_and_what_is_read(tmp_path: Path) -> None:
    assert PAPER.keys() <= MODELS.keys()
    assert "trainable    28,964" in describe("vipt-tiny")
    assert "trainable    0" in describe("protrack-tiny")
    checkpoint.save(tmp_path / "m.safetensors", create_model("ostrack-tiny", input="aux", **SMALL), {})
    assert "modalities   2 (RGB and auxiliary; it reads the auxiliary alone)" in describe(str(tmp_path / "m.safetensors"))
