import gzip
import math
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mstrack.checkpoint import fill
from mstrack.errors import UserError
from mstrack.models import Network, create_model
from mstrack.models.blocks import Block, DropPath, Prediction, normalise
from mstrack.models.cost import count_flops, count_parameters
from mstrack.models.elimination import centre_token
from mstrack.models.positions import interpolate_positions
from mstrack.models.remap import family_of, identify, translate
from mstrack.registry import MODELS

SMALL = {"width": 24, "heads": 3, "head_channels": 8}
TINY = sorted(name for name in MODELS if name.endswith("-tiny"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    """The same weights in every order of the tests: a head as small as this is born dead once in sixty times."""
    torch.manual_seed(0)


def inputs(model: Network, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = (model.template_size, model.search_size)
    template, search = (torch.randn(batch, model.modalities, 3, side, side, generator=generator) for side in sides)
    return template, search


def scramble(model: Network, seed: int = 0) -> Network:
    """Weights and statistics far from their starting values, so that no term of the network is 0 or 1 by accident."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.is_floating_point():
            value.add_(torch.randn(value.shape, generator=generator) * (0.3 if value.dim() < 2 else 0.1))
    return model.eval()


def on_meta(name: str, **kwargs: object) -> Network:
    with torch.device("meta"):
        return create_model(name, **kwargs)


# ---------------------------------------------------------------- slow and obvious
def slow_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def slow_block(state: dict[str, Tensor], block: str, x: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """One item, N x width: the tokens after attention, and the attention of every head (heads x N x N)."""
    get = {key.removeprefix(block + "."): value for key, value in state.items() if key.startswith(block + ".")}
    qkv = slow_norm(x, get["norm1.weight"], get["norm1.bias"]) @ get["attn.qkv.weight"].T + get["attn.qkv.bias"]
    query, key, value = qkv.chunk(3, dim=1)
    size = x.shape[1] // heads
    mixed, maps = [], []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        logits = query[:, part] @ key[:, part].T / math.sqrt(size)
        weights = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
        maps.append(weights)
        mixed.append(weights @ value[:, part])
    return x + torch.cat(mixed, dim=1) @ get["attn.proj.weight"].T + get["attn.proj.bias"], torch.stack(maps)


def slow_mlp(state: dict[str, Tensor], block: str, x: Tensor) -> Tensor:
    get = {key.removeprefix(block + "."): value for key, value in state.items() if key.startswith(block + ".")}
    hidden = slow_norm(x, get["norm2.weight"], get["norm2.bias"]) @ get["mlp.fc1.weight"].T + get["mlp.fc1.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + hidden @ get["mlp.fc2.weight"].T + get["mlp.fc2.bias"]


def slow_patches(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    patch = weight.shape[-1]
    rows = [
        (weight * image[:, top : top + patch, left : left + patch]).sum(dim=(1, 2, 3)) + bias
        for top in range(0, image.shape[1], patch)
        for left in range(0, image.shape[2], patch)
    ]
    return torch.stack(rows)


def slow_one_stream(
    model: Network, template: Tensor, search: Tensor, layers: tuple[int, ...]
) -> tuple[Tensor, list[list[int]]]:
    """Tokens of one item, and what each layer of `layers` dropped."""
    state = model.state_dict()
    embed = state["embed.weight"], state["embed.bias"]
    z = slow_patches(template[0], *embed) + state["position_template"][0]
    x = slow_patches(search[0], *embed) + state["position_search"][0]
    if "temporal_template" in state:
        z, x = z + state["temporal_template"][0], x + state["temporal_search"][0]
    kept, dropped = list(range(len(x))), []
    tokens = torch.cat((z, x))
    for layer in range(model.depth):
        tokens, attention = slow_block(state, f"blocks.{layer}", tokens, model.blocks[layer].attn.heads)
        if layer in layers:
            row = attention[:, centre_token(len(z)), len(z) :].mean(dim=0).tolist()
            order = sorted(range(len(kept)), key=lambda i: -row[i])
            stay = math.ceil(0.7 * len(kept))
            tokens = torch.cat((tokens[: len(z)], torch.stack([tokens[len(z) + i] for i in order[:stay]])))
            dropped.append([kept[i] for i in order[stay:]])
            kept = [kept[i] for i in order[:stay]]
        tokens = slow_mlp(state, f"blocks.{layer}", tokens)
    tokens = slow_norm(tokens, state["norm.weight"], state["norm.bias"])
    whole = torch.zeros(len(z) + len(x), tokens.shape[1], dtype=tokens.dtype)
    whole[: len(z)] = tokens[: len(z)]
    for place, token in zip(kept, tokens[len(z) :], strict=True):
        whole[len(z) + place] = token
    return whole, dropped


# ---------------------------------------------------------------- forward
@pytest.mark.parametrize("elimination", [False, True])
@pytest.mark.parametrize("droptrack", [False, True])
def test_one_stream_equals_a_slow_and_obvious_one(elimination: bool, droptrack: bool) -> None:
    model = scramble(create_model("ostrack-tiny", elimination=elimination, droptrack=droptrack, **SMALL)).double()
    template, search = (images.double() for images in inputs(model))
    tokens = model.features(template, search)
    for item in range(2):
        expected, dropped = slow_one_stream(model, template[item], search[item], (1, 2, 3) if elimination else ())
        torch.testing.assert_close(tokens[item], expected, rtol=0, atol=1e-9)
        assert [layer[item].tolist() for layer in model.removed] == dropped


def test_elimination_keeps_the_published_numbers_of_tokens() -> None:
    model = create_model("ostrack-b256", elimination=True, width=24, heads=3, head_channels=8).eval()
    assert model.eliminating == (3, 6, 9)
    tokens = model.features(*inputs(model))
    assert [layer.shape[1] for layer in model.removed] == [256 - 180, 180 - 126, 126 - 89]
    gone = torch.cat(model.removed, dim=1)
    for item in range(2):
        zero = (tokens[item, 64:] == 0).all(dim=1).nonzero().flatten().tolist()
        assert zero == sorted(gone[item].tolist())
    assert [centre_token(count) for count in (16, 64, 144)] == [5, 3 * 8 + 3, 5 * 12 + 5]


def test_two_streams_of_the_same_image_are_one_stream_with_blocks_repeated() -> None:
    """Attention over every token twice is attention over every token once, so the copies must not be told apart."""
    one = scramble(create_model("ostrack-tiny", **SMALL)).double()
    two = create_model("mst-tiny", **SMALL).eval().double()
    two.load_state_dict(two.remap(one.state_dict()))
    repeated = create_model("ostrack-tiny", **SMALL, depth=6).eval().double()
    order = [0, 1, 1, 2, 3, 3]
    state = {k: v for k, v in one.state_dict().items() if not k.startswith("blocks.")}
    for layer, source in enumerate(order):
        state |= {f"blocks.{layer}.{k}": v for k, v in one.blocks[source].state_dict().items()}
    repeated.load_state_dict(state)
    template, search = (images.double() for images in inputs(one))
    got = two(template.expand(-1, 2, -1, -1, -1), search.expand(-1, 2, -1, -1, -1))
    torch.testing.assert_close(got, repeated(template, search), rtol=0, atol=1e-10)


def test_the_two_streams_are_told_apart_and_meet() -> None:
    model = scramble(create_model("mst-tiny", **SMALL))
    template, search = inputs(model)
    straight, swapped = model(template, search).score, model(template.flip(1), search.flip(1)).score
    assert (straight - swapped).abs().max() > 1e-3
    alone = create_model("mst-tiny", **SMALL, cross_layers=[]).eval()
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("cross.")})
    assert (straight - alone(template, search).score).abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("droptrack", [False, True])
def test_every_model_has_the_contracts_shapes_and_geometry(name: str, droptrack: bool) -> None:
    model = on_meta(name, droptrack=droptrack)
    template, search = (images.to("meta") for images in inputs(model, batch=3))
    prediction = model(template, search)
    n = model.search_size // model.stride
    assert [tuple(m.shape) for m in prediction] == [(3, 1, n, n), (3, 2, n, n), (3, 2, n, n)]
    assert prediction.boxes.shape == (3, 4)
    assert (model.name, model.arguments, model.provenance) == (name, {"droptrack": droptrack}, {})
    assert model.template_factor == 2.0
    if not name.endswith("tiny"):
        wide = name.endswith("b384") and not name.startswith(("mst", "ceutrack"))
        assert model.search_factor == (5.0 if droptrack or wide else 4.0)
    for wrong in (template[:, :, :, 1:], torch.cat((template, template), dim=1), template[:, 0]):
        with pytest.raises(ValueError, match="template has shape"):
            model(wrong, search)
    with pytest.raises(ValueError, match="search has shape"):
        model(template, template)


@pytest.mark.parametrize("name", TINY)
def test_an_item_does_not_depend_on_its_batch_and_every_parameter_learns(name: str) -> None:
    model = scramble(create_model(name, droptrack=True, **SMALL))
    template, search = inputs(model, batch=3)
    together = model(template, search)
    for item in range(3):
        torch.testing.assert_close(model(template[[item]], search[[item]]).boxes, together.boxes[[item]], rtol=0, atol=1e-5)
    trains = {k: p for k, p in model.named_parameters() if p.requires_grad}
    assert bool(trains) == (name != "protrack-tiny")
    if trains:
        sum(m.square().sum() for m in together).backward()
    idle = [k for k, p in trains.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == [k for k in trains if any(fnmatchcase(k, pattern) for pattern in model.idle)]


def test_autocast_predicts_in_float32() -> None:
    model = scramble(create_model("mst-tiny", **SMALL))
    template, search = inputs(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(template, search)
    exact = model(template, search)
    assert all(m.dtype == torch.float32 for m in rough)
    assert 0 < (rough.score - exact.score).abs().max() < 0.1


def test_scores_and_sizes_stay_away_from_0_and_1() -> None:
    model = create_model("ostrack-tiny", **SMALL).eval()
    with torch.no_grad():
        model.head.score[4].bias.fill_(-50)
        model.head.size[4].bias.fill_(50)
    prediction = model(*inputs(model))
    torch.testing.assert_close(prediction.score, torch.full_like(prediction.score, 1e-4))
    torch.testing.assert_close(prediction.size, torch.full_like(prediction.size, 1 - 1e-4))


def test_boxes_are_read_cell_by_cell() -> None:
    generator = torch.Generator().manual_seed(0)
    score, size, offset = (torch.rand(3, channels, 5, 5, generator=generator) for channels in (1, 2, 2))
    prediction = Prediction(score, size, offset)
    for index in (0, 7, 24):
        y, x = divmod(index, 5)
        for item, box in enumerate(prediction.boxes_at(torch.tensor([index] * 3))):
            centre = [(x + offset[item, 0, y, x]) / 5, (y + offset[item, 1, y, x]) / 5]
            torch.testing.assert_close(box, torch.tensor([*centre, *size[item, :, y, x]]))
    peaks = torch.tensor([int(np.argmax(score[item].numpy())) for item in range(3)])
    torch.testing.assert_close(prediction.boxes, prediction.boxes_at(peaks))


def test_normalise_is_exact_on_every_grey_level() -> None:
    grey = torch.arange(256, dtype=torch.uint8).view(16, 16).expand(2, 3, 16, 16)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    expected = (grey.numpy().astype(np.float32) / np.float32(255) - mean[:, None, None]) / std[:, None, None]
    assert np.array_equal(normalise(grey).numpy(), expected)


# ---------------------------------------------------------------- cost, as published
@pytest.mark.parametrize(
    ("name", "kwargs", "published", "without_positions", "gigaflops"),
    [
        ("ostrack-b256", {}, 92_518_533, 92.1, 58.1),
        ("ostrack-b384", {}, 92_825_733, 92.1, 130.6),
        ("mst-b256", {}, 206_365_317, 206.1, 149.0),
        ("mst-b384", {}, 206_672_517, 206.1, 335.3),
        ("mst-b384", {"droptrack": True}, 206_674_053, 206.1, 335.3),
    ],
)
def test_costs_are_the_published_ones(
    name: str, kwargs: dict[str, bool], published: int, without_positions: float, gigaflops: float
) -> None:
    model = on_meta(name, **kwargs)
    parameters, flops = count_parameters(model), count_flops(model)
    assert parameters.published == published
    assert round((parameters.total - parameters.positions) / 1e6, 1) == without_positions
    assert round(flops.weights / 1e9, 1) == gigaflops
    tokens = (model.template_size**2 + model.search_size**2) // 256
    layers = [tokens] * 12 if model.modalities == 1 else [tokens] * 24 + [2 * tokens] * 4
    assert flops.total - flops.weights == sum(4 * n * n * 768 for n in layers)


def test_what_trains_as_published() -> None:
    named = dict(on_meta("mst-b256").named_parameters())
    trains = {name: p for name, p in named.items() if not name.startswith(("head.", "position_"))}
    assert sum(p.numel() for p in trains.values()) == 199_644_672
    assert len(trains) == 344


def test_counting_leaves_the_model_alone_and_sees_elimination() -> None:
    model = create_model("ostrack-tiny", elimination=True, **SMALL).train()
    model.embed.weight.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fewer = count_flops(model)
    assert fewer.weights < count_flops(create_model("ostrack-tiny", **SMALL)).weights
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    parameters = count_parameters(model)
    assert parameters.total - parameters.trainable == model.embed.weight.numel()


def test_tiny_models_are_tiny() -> None:
    one, two = dict(on_meta("ostrack-tiny").named_parameters()), dict(on_meta("mst-tiny").named_parameters())
    assert sum(p.numel() for p in one.values()) == pytest.approx(0.62e6, rel=0.05)
    trains = [p.numel() for name, p in two.items() if not name.startswith(("head.", "position_"))]
    assert sum(trains) == pytest.approx(1.16e6, rel=0.01)


# ---------------------------------------------------------------- training behaviour
def test_drop_path_is_off_in_eval_and_keeps_the_mean_in_training() -> None:
    path, branch = DropPath(0.25), torch.ones(20000, 2, 3)
    assert path.eval()(branch) is branch
    torch.manual_seed(0)
    dropped = path.train()(branch)
    assert set(dropped.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)


def test_drop_path_grows_with_depth_and_cross_blocks_take_their_layers() -> None:
    model = on_meta("mst-b256", drop_path=0.1)

    def rates(blocks: torch.nn.ModuleList) -> list[float]:
        return [block.drop_path.rate for block in blocks if isinstance(block, Block)]

    linear = [0.1 * layer / 11 for layer in range(12)]
    assert rates(model.blocks_rgb) == rates(model.blocks_aux) == pytest.approx(linear)
    assert rates(model.cross) == pytest.approx([linear[layer] for layer in (2, 5, 8, 11)])


def test_fresh_weights_have_the_spread_they_should() -> None:
    torch.manual_seed(0)
    model = create_model("mst-tiny")
    linear = torch.cat([v.flatten() for k, v in model.named_parameters() if ".attn." in k or ".mlp." in k if v.dim() == 2])
    assert linear.abs().max() <= 0.04
    assert linear.std().item() == pytest.approx(0.02 * 0.88, rel=0.02)  # a normal cut at two deviations
    for name, value in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            assert (value == 1).all()
        elif not name.startswith("head.") and name.endswith("bias"):
            assert (value == 0).all()
        elif value.dim() > 1:
            assert value.std() > 0.01, name
    assert not torch.equal(model.blocks_rgb[0].attn.qkv.weight, model.blocks_aux[0].attn.qkv.weight)


def test_a_seed_makes_the_same_model_twice() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(create_model("mst-tiny", **SMALL).state_dict())
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


# ---------------------------------------------------------------- bad arguments
@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("ostrack-b255", {}, "Did you mean 'ostrack-b256'"),
        ("ostrack-tiny", {"eliminatoin": True}, "argument of model 'ostrack-tiny' 'eliminatoin'. Did you mean 'elimination'"),
        ("mst-tiny", {"elimination": True}, "unknown argument of model 'mst-tiny' 'elimination'"),
        ("mst-tiny", {"search_size": 70}, "search_size=70 is not a multiple of patch=8"),
        ("mst-tiny", {"heads": 5}, "width=96 does not divide into heads=5"),
        ("mst-tiny", {"drop_path": 1.0}, "drop_path=1.0"),
        ("mst-tiny", {"cross_layers": [1, 4]}, "expected ascending layers from 0 to 3"),
        ("mst-tiny", {"cross_layers": [3, 1]}, "expected ascending layers from 0 to 3"),
        ("ostrack-tiny", {"elimination": True, "depth": 3}, "depth of at least 4"),
    ],
)
def test_bad_arguments_are_named(name: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        create_model(name, **kwargs)
    assert message in str(error.value)


# ---------------------------------------------------------------- names in checkpoints
def published_keys(shared: Path, name: str) -> dict[str, Tensor]:
    """Empty tensors under the published names."""
    with gzip.open(shared / "golden" / f"{name}_keys.txt.gz", "rt") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    shapes = {key: () if shape == "scalar" else tuple(map(int, shape.split("x"))) for key, shape, _ in rows}
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ("ostrack256", "ostrack-b256"),
        ("ostrack384", "ostrack-b384"),
        ("ostrack256", "mst-b256"),
        ("ostrack384", "mst-b384"),
        ("dualstream256", "mst-b256"),
    ],
)
def test_published_names_cover_the_model_exactly(shared: Path, keys: str, name: str) -> None:
    model = on_meta(name)
    renamed = model.remap(published_keys(shared, keys))
    expected = {k: v.shape for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert {k: v.shape for k, v in renamed.items()} == expected


def test_a_dual_stream_starts_from_ostrack_as_the_published_mapping_says(shared: Path) -> None:
    with gzip.open(shared / "golden" / "dualstream256_mapping.txt.gz", "rt") as file:
        mapping = dict(line.rstrip("\n").split("\t") for line in file)
    mapping["box_head.conv5_ctr.bias"] = "box_head.conv5_ctr.bias"  # of one element, which the file marks "-"
    ostrack = published_keys(shared, "ostrack256")
    number = {key: torch.tensor(float(index)) for index, key in enumerate(ostrack)}
    ours = on_meta("mst-b256").remap(number)
    _, theirs = translate({key: number[source] for key, source in mapping.items() if source in number})
    assert {k: v.item() for k, v in ours.items()} == {k: v.item() for k, v in theirs.items()}
    assert len({value.data_ptr() for value in ours.values()}) == len(ours)


def test_droptrack_names(shared: Path) -> None:
    for keys, name in (("ostrack384", "ostrack-b384"), ("ostrack384", "mst-b384"), ("dualstream256", "mst-b256")):
        extra = {f"backbone.temporal_pos_embed_{which}": torch.empty(1, 1, 768, device="meta") for which in "zx"}
        state = published_keys(shared, keys) | extra
        model = on_meta(name, droptrack=True)
        renamed = model.remap(state)
        assert renamed.keys() == {k for k in model.state_dict() if not k.endswith("num_batches_tracked")}
        family = "mst" if keys.startswith("dual") else "ostrack"
        assert identify(state) == (f"{family}-{name[-4:]}", {"droptrack": True})


def test_unknown_names_stay_and_unread_ones_go() -> None:
    state = {
        "backbone.blocks.0.norm1.weight": torch.ones(1),
        "backbone.pos_embed": torch.ones(1),
        "backbone.cls_token": torch.ones(1),
        "box_head.conv2_size.1.num_batches_tracked": torch.ones(1),
        "box_head.conv2_size.1.running_var": torch.ones(1),
        "backbone.attentive.weight": torch.ones(1),
    }
    expected = ["blocks.0.norm1.weight", "head.size.1.norm.running_var", "backbone.attentive.weight"]
    family, renamed = translate(state)
    assert (family, list(renamed)) == ("ostrack", expected)


@pytest.mark.parametrize("name", TINY)
def test_our_own_names_pass_unchanged(name: str) -> None:
    model = create_model(name, **SMALL)
    state = model.state_dict()
    assert family_of(state) == model.family
    renamed = model.remap(state)
    assert list(renamed) == list(state)
    assert all(renamed[key] is state[key] for key in state)


@pytest.mark.parametrize("name", TINY)
def test_every_tracker_starts_from_a_one_stream_checkpoint(name: str) -> None:
    one, model = create_model("ostrack-tiny", **SMALL).state_dict(), create_model(name, **SMALL)
    state = model.state_dict()
    started = model.remap(one)
    assert {k: v.shape for k, v in started.items()} == {k: v.shape for k, v in state.items()}
    fresh = {k for k in state if any(fnmatchcase(k, pattern) for pattern in model.fresh)}
    for key in state.keys() & (fresh | one.keys()):
        source = (state if key in fresh else one)[key]
        widened = source.shape != state[key].shape
        assert widened or started[key].data_ptr() == source.data_ptr(), key
    with pytest.raises(UserError, match=r"missing: .*norm2\.bias"):
        fill(model, model.remap({k: v for k, v in one.items() if k != "blocks.2.norm2.bias"}))


def test_the_wrong_kind_of_checkpoint_is_named() -> None:
    two = create_model("mst-tiny", **SMALL)
    with pytest.raises(UserError, match="dual-stream"):
        create_model("ostrack-tiny", **SMALL).remap(two.state_dict())
    with pytest.raises(UserError, match=r"begin with conv1\.weight"):
        two.remap({"conv1.weight": torch.ones(1)})


# ---------------------------------------------------------------- position embeddings
def test_interpolated_positions_keep_a_grid_and_drop_a_class_token() -> None:
    grid = torch.randn(1, 49, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(interpolate_positions(grid, 7), grid)
    with_token = torch.cat((torch.full((1, 1, 6), 99.0), grid), dim=1)
    assert torch.equal(interpolate_positions(with_token, 10), interpolate_positions(grid, 10))
    with pytest.raises(ValueError, match="square"):
        interpolate_positions(grid[:, :48], 7)


def test_interpolated_positions_follow_a_ramp() -> None:
    """Between cells, bicubic values lie on the line through them to 0.05 of a cell; x and y must not be mixed up."""
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    positions = torch.stack((x, y), dim=2).view(1, 64, 2)
    grid = interpolate_positions(positions, 16).view(16, 16, 2)
    expected = (torch.arange(16) + 0.5) / 2 - 0.5
    torch.testing.assert_close(grid[4:12, 4:12, 0], expected[4:12].expand(8, 8), rtol=0, atol=0.05)
    torch.testing.assert_close(grid[4:12, 4:12, 1], expected[4:12, None].expand(8, 8), rtol=0, atol=0.05)


def test_an_argument_of_the_wrong_type_is_named() -> None:
    with pytest.raises(UserError, match=r"model 'mst-tiny' cannot be made with width='a' .*It takes: .*width: int = 96"):
        create_model("mst-tiny", width="a")
