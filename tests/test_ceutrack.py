"""CEUTrack against the published network, run from its own code, and against a slow and obvious one.

Golden numbers: Event-AHU/COESOT, commit e5efe5f (`CEUTrack/`, configuration `ceutrack_coesot`, without the adapter that was
added to the code after the weights were published), on the CPU in float32; weights and images by `../shared/golden/recipe.py`,
voxels by `random_voxels` and `frame_voxels`. `SMALL_GOLDEN` is the network with two blocks on crops of 64 and 128 pixels. The
published network as it is (12 blocks, 128 and 256 pixels) was compared once in the same way: the largest differences were 2e-6
in the score, 2e-7 in the size, 7e-6 in the offset.
"""

import gzip
import importlib.util
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from test_models import SMALL, inputs, scramble, slow_block, slow_mlp, slow_norm, slow_patches
from torch import Tensor

from mstrack import checkpoint
from mstrack.config import load_config
from mstrack.data.crops import square_around
from mstrack.data.sequence import Frame
from mstrack.errors import UserError
from mstrack.models import Network, create_model
from mstrack.models.ceutrack import select_voxels
from mstrack.models.cost import count_flops, count_parameters
from mstrack.models.positions import interpolate_positions
from mstrack.models.remap import identify
from mstrack.tracker import Tracker

SMALL_GOLDEN = {
    "score": "0.251906 0.155533  0.139427 0.013172 0.111599 0.090769  0.479934 0.529516 0.467517 0.297590",
    "size": "0.268090 0.021533  0.254785 0.272533 0.268120 0.278219  0.255710 0.267036 0.273246 0.264537",
    "offset": "0.526717 0.758611  -0.025604 -0.317525 -0.015392 0.330267  0.030287 -0.601585 -0.342294 -0.021645",
    "boxes": "0.498519 0.247123  0.669644 0.823072 0.268408 0.259098  0.651756 0.812404 0.251027 0.252740",
    "rgb": "0.001234 1.000395  -0.734419 -0.932400 -0.757026 0.565312  -0.411667 -1.155131 1.262638 -0.611013",
    "events": "0.005358 0.602362  1.151992 -0.165899 -0.220853 -0.803269  -0.172886 -0.055509 -0.234761 0.003864",
}
"""Mean and deviation, the first four numbers, the last four."""
TOLERANCE = {"score": 2e-5, "size": 5e-6, "offset": 5e-5, "boxes": 2e-6, "rgb": 2e-5, "events": 2e-5}


@pytest.fixture(scope="module")
def recipe(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_recipe", shared / "golden" / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published_shapes(shared: Path, depth: int = 12, cells: tuple[int, int] = (64, 256)) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published checkpoint: OSTrack's, a voxel embedding, and a head that reads twice the channels."""
    with gzip.open(shared / "golden" / "ostrack256_keys.txt.gz", "rt") as file:
        rows = [line.split("\t") for line in file]
    shapes = {key: () if shape == "scalar" else tuple(map(int, shape.split("x"))) for key, shape, _ in rows}
    shapes = {key: shape for key, shape in shapes.items() if "blocks." not in key or int(key.split(".")[2]) < depth}
    shapes |= {f"box_head.conv1_{tower}.0.weight": (256, 1536, 3, 3) for tower in ("ctr", "offset", "size")}
    shapes |= {"backbone.pos_embed_z": (1, cells[0], 768), "backbone.pos_embed_x": (1, cells[1], 768)}
    voxels = {
        "pos_embedding.weight": (16, 3, 1),
        "pos_embedding.bias": (16,),
        "proj.weight": (768, 32, 4, 4),
        "proj.bias": (768,),
    }
    return shapes | {f"backbone.pos_embed_event.{key}": shape for key, shape in voxels.items()}


def on_meta(name: str, **kwargs: object) -> Network:
    with torch.device("meta"):
        return create_model(name, **kwargs)


def generator_of(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def random_voxels(name: str, count: int) -> Tensor:
    """19 x count, the last quarter empty."""
    generator, filled = generator_of(name), count * 3 // 4
    voxels = np.zeros((19, count), np.float32)
    voxels[:3, :filled] = generator.random((3, filled))
    voxels[3:, :filled] = generator.integers(-1, 2, (16, filled))
    return torch.from_numpy(voxels)


def frame_voxels(index: int, count: int) -> Tensor:
    """`count` x 19 as in COESOT's .mat files, of an image of 320 x 240."""
    generator = generator_of(f"voxels/{index}")
    cells = [generator.integers(0, end, count) for end in (20, 32, 24)]
    return torch.from_numpy(np.column_stack([*cells, generator.integers(-1, 2, (count, 16))]).astype(np.float64))


# ---------------------------------------------------------------- the published network
def test_published_names_cover_the_model_exactly(shared: Path) -> None:
    shapes = published_shapes(shared)
    assert len(shapes) == 246  # of the published network's own state dict
    published = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert identify(published) == ("ceutrack-b256", {"events": "voxels"})
    model = on_meta("ceutrack-b256", events="voxels")
    renamed = model.remap(published)
    expected = {k: v.shape for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert {k: v.shape for k, v in renamed.items()} == expected
    assert count_parameters(model).published == 98_220_997


def test_it_predicts_what_the_published_network_predicts(shared: Path, recipe: ModuleType) -> None:
    sizes = {"template_size": 64, "search_size": 128}
    model = on_meta("ceutrack-b256", events="voxels", depth=2, **sizes)
    shapes = published_shapes(shared, depth=2, cells=(16, 64))
    assert len(shapes) == 126
    published = {key: torch.from_numpy(np.asarray(recipe.tensor(key, shape))) for key, shape in shapes.items()}
    checkpoint.fill(model, model.remap(published), assign=True)
    images = recipe.model_inputs(*sizes.values(), channels=3, batch=2)
    template, search = (torch.from_numpy(np.stack([recipe.normalise(i) for i in batch]))[:, None] for batch in images)
    counts = {"template": 256, "search": 1024}
    voxels = [torch.stack([random_voxels(f"{which}/{b}", count) for b in range(2)]) for which, count in counts.items()]
    with torch.inference_mode():
        prediction = model.eval()(template, search, *voxels)
        tokens = model.features(template, search, *voxels)[:, 16:]
    found = prediction._asdict() | {"boxes": prediction.boxes, "rgb": tokens[..., :768], "events": tokens[..., 768:]}
    for name, golden in SMALL_GOLDEN.items():
        values = found[name].double().flatten()
        numbers = [values.mean(), values.std(correction=0), *values[:4], *values[-4:]]
        assert [float(number) for number in numbers] == pytest.approx([float(g) for g in golden.split()], abs=TOLERANCE[name])


@pytest.mark.parametrize(
    ("frame", "there", "box", "factor", "total", "weighted"),
    [
        (0, 5000, [140, 90, 48, 36], 2, 670.3496240601504, None),
        (1, 5000, [140, 90, 48, 36], 4, 2839.6626221241722, 329488.23904821934),
        (3, 16000, [163.672, 75.232, 48.522, 49.531], 4, 54725.68474485706, 25656137.185813516),
        (4, 20000, [154.335, 66.066, 52.885, 53.239], 4, 71416.0735925737, 34536165.312223956),
        (5, 100, [105.072, 79.922, 59.937, 59.594], 4, 78.46624713958812, -12876.807398932113),
    ],
)
def test_voxels_of_a_crop_are_those_the_published_tracker_feeds(
    frame: int, there: int, box: list[float], factor: float, total: float, weighted: float | None
) -> None:
    """Their sum, and that weighted by row and column, of a template and of search crops with too few voxels and too many."""
    count = 1024 if factor == 2 else 4096
    voxels = select_voxels(frame_voxels(frame, there), square_around(box, factor).inside((240, 320)), count)
    assert voxels.shape == (19, count)
    assert voxels.sum().item() == pytest.approx(total, rel=1e-6)
    if weighted is not None:
        weights = torch.arange(1, 20)[:, None] * (torch.arange(count) % 97)
        assert (voxels * weights).sum().item() == pytest.approx(weighted, rel=1e-6)


def test_a_voxel_lies_where_its_events_were() -> None:
    """One in the middle of an image, one outside the crop."""
    voxels = torch.zeros(2, 19)
    voxels[:, :3] = torch.tensor([[4, 16, 12], [4, 3, 12]])
    voxels[:, 3] = torch.tensor([1.0, -1.0])
    chosen = select_voxels(voxels, (slice(100, 150), slice(120, 200)), 5)
    torch.testing.assert_close(chosen[:4, 0], torch.tensor([45 / 80, 25 / 50, 4.5 / 19, 1.0]))
    assert not chosen[:, 1:].any()


# ---------------------------------------------------------------- frames
def slow_ceutrack(model: Network, template: Tensor, search: Tensor) -> Tensor:
    """What the head reads of one item: (Nz + Nx) x 2 width."""
    state = model.state_dict()
    parts = []
    for modality, name in enumerate(("embed", "embed_aux")):
        for which, image in (("template", template), ("search", search)):
            patches = slow_patches(image[modality], state[f"{name}.weight"], state[f"{name}.bias"])
            parts.append(patches + state[f"position_{which}"][0] + state[f"temporal_{which}"][0])
    tokens = torch.cat([parts[0], parts[2], parts[1], parts[3]])  # the published order
    for layer in range(model.depth):
        tokens, _ = slow_block(state, f"blocks.{layer}", tokens, model.blocks[layer].attn.heads)
        tokens = slow_mlp(state, f"blocks.{layer}", tokens)
    tokens = slow_norm(tokens, state["norm.weight"], state["norm.bias"])
    short, long = len(parts[0]), len(parts[1])
    rgb = torch.cat([tokens[:short], tokens[2 * short : 2 * short + long]])
    return torch.cat((rgb, torch.cat(parts[2:])), dim=1)


def test_it_equals_a_slow_and_obvious_one() -> None:
    model = scramble(create_model("ceutrack-tiny", droptrack=True, **SMALL)).double()
    template, search = (images.double() for images in inputs(model))
    tokens = model.features(template, search)
    for item in range(2):
        torch.testing.assert_close(tokens[item], slow_ceutrack(model, template[item], search[item]), rtol=0, atol=1e-9)
    cells = model.position_template.shape[1]
    torch.testing.assert_close(model(template, search), model.head(tokens[:, cells:]), rtol=0, atol=0)


def test_the_second_modality_is_told_from_the_first_and_every_parameter_learns() -> None:
    torch.manual_seed(0)  # a small head may be born dead
    model = scramble(create_model("ceutrack-tiny", **SMALL))
    template, search = inputs(model)
    straight = model(template, search)
    assert (straight.score - model(template.flip(1), search.flip(1)).score).abs().max() > 1e-3
    sum(m.square().sum() for m in straight).backward()
    assert [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_every_parameter_learns_from_voxels() -> None:
    torch.manual_seed(0)
    model = scramble(create_model("ceutrack-tiny", events="voxels", **SMALL))
    assert [tuple(part.shape) for part in model.inputs(2)] == [
        (2, 1, 3, 32, 32),
        (2, 1, 3, 64, 64),
        (2, 19, 256),
        (2, 19, 1024),
    ]
    crops, voxels = inputs(model), [torch.stack([random_voxels(str(b), count) for b in range(2)]) for count in (256, 1024)]
    prediction = model(*crops, *voxels)
    sum(m.square().sum() for m in prediction).backward()
    assert [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert count_flops(model).weights > 0


# ---------------------------------------------------------------- starting weights
@pytest.mark.parametrize("events", ["frames", "voxels"])
def test_it_starts_from_a_one_stream_tracker(events: str) -> None:
    """Attention over every token twice is attention over every token once, and the head does not see the second ones yet."""
    one = scramble(create_model("ostrack-tiny", **SMALL)).double()
    model = create_model("ceutrack-tiny", events=events, **SMALL).eval().double()
    own = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoint.fill(model, model.remap(one.state_dict()))
    state = model.state_dict()
    if events == "voxels":
        assert all(torch.equal(state[name], own[name]) for name in state if name.startswith("embed_aux."))
        return
    assert torch.equal(state["embed_aux.weight"], state["embed.weight"])
    template, search = (images.double() for images in inputs(one))
    twice = model(template.expand(-1, 2, -1, -1, -1), search.expand(-1, 2, -1, -1, -1))
    torch.testing.assert_close(twice, one(template, search), rtol=0, atol=1e-10)
    assert len({value.data_ptr() for value in model.parameters()}) == len(list(model.parameters()))


@pytest.mark.parametrize("name", ["ceutrack-tiny", "ostrack-tiny", "mst-tiny"])
def test_it_starts_from_a_vit(name: str) -> None:
    """MAE's names; position embeddings of a 14 x 14 grid behind a class token; no head."""
    model = create_model(name, **SMALL)
    donor = create_model("ostrack-tiny", **SMALL)
    generator = torch.Generator().manual_seed(0)
    positions = torch.randn(1, 197, 24, generator=generator)
    body = {k: v for k, v in donor.state_dict().items() if k.split(".")[0] in ("embed", "blocks", "norm")}
    vit = {name.replace("embed.", "patch_embed.proj."): value for name, value in body.items()}
    head = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("head.")}
    checkpoint.fill(model, model.remap({"cls_token": torch.zeros(1, 1, 24), "pos_embed": positions, **vit}))
    state = model.state_dict()
    assert torch.equal(state["position_search"], interpolate_positions(positions, 8))
    assert torch.equal(state["position_template"], interpolate_positions(positions, 4))
    assert all(torch.equal(state[name], value) for name, value in head.items())
    first = next(name for name in state if name.startswith("blocks") and name.endswith("0.attn.qkv.weight"))
    assert torch.equal(state[first], donor.state_dict()["blocks.0.attn.qkv.weight"])


def test_a_published_file_becomes_ours(tmp_path: Path) -> None:
    """Written as the published trainer writes it, and in ViT-B's width, by which it is recognised."""
    torch.manual_seed(0)
    arguments = {"events": "voxels", "depth": 1, "head_channels": 16}
    model = scramble(create_model("ceutrack-b256", **arguments))
    names = {
        "position_template": "backbone.pos_embed_z",
        "position_search": "backbone.pos_embed_x",
        "embed_aux.place.": "backbone.pos_embed_event.pos_embedding.",
        "embed_aux.patches.": "backbone.pos_embed_event.proj.",
        "embed.": "backbone.patch_embed.proj.",
        "blocks.": "backbone.blocks.",
        "norm.": "backbone.norm.",
    }
    published = {}
    for name, value in model.state_dict().items():
        if name.startswith("head."):
            _, tower, stage, *rest = name.split(".")
            part = {"conv": ".0", "norm": ".1"}.get(rest[0], "")
            published[f"box_head.conv{int(stage) + 1}_{tower.replace('score', 'ctr')}{part}.{rest[-1]}"] = value
        else:
            ours = next(begin for begin in names if name.startswith(begin))
            published[name.replace(ours, names[ours], 1)] = value
    torch.save({"epoch": 50, "net_type": "CEUTrack", "net": published}, tmp_path / "CEUTrack_ep0050.pth.tar")
    checkpoint.convert(tmp_path / "CEUTrack_ep0050.pth.tar", tmp_path / "ceutrack-b256.safetensors", depth=1, head_channels=16)
    again = checkpoint.load(tmp_path / "ceutrack-b256.safetensors")
    assert (again.name, again.arguments) == ("ceutrack-b256", arguments)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert len(again.provenance["sha256"]) == 64


# ---------------------------------------------------------------- jobs
def test_it_tracks_frames_and_says_that_it_cannot_be_fed_voxels() -> None:
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    frames = [Frame(*generator.integers(0, 256, (2, 60, 80, 3), dtype=np.uint8)) for _ in range(3)]
    tracker = Tracker(create_model("ceutrack-tiny", **SMALL))
    tracker.init(frames[0], (30, 20, 12, 10))
    for frame in frames[1:]:
        box, score = tracker.update(frame)
        assert np.isfinite(box).all()
        assert 0 < score < 1
    tracker = Tracker(create_model("ceutrack-tiny", events="voxels", **SMALL))
    tracker.init(frames[0], (30, 20, 12, 10))
    with pytest.raises(UserError, match="events=frames"):
        tracker.update(frames[1])


def test_wrong_forms_are_named() -> None:
    with pytest.raises(UserError, match="Did you mean 'voxels'"):
        create_model("ceutrack-tiny", events="voxel")
    model = create_model("ceutrack-tiny", events="voxels", **SMALL)
    crops = inputs(model)
    with pytest.raises(ValueError, match=r"\(19, 256\), \(19, 1024\)"):
        model(*crops, torch.zeros(2, 19, 1024), torch.zeros(2, 19, 1024))
    framed = create_model("ceutrack-tiny", **SMALL)
    with pytest.raises(UserError, match=r"embed_aux\.weight"):
        checkpoint.fill(framed, framed.remap(model.state_dict()))


def test_the_recipe_is_the_published_one() -> None:
    """`experiments/ceutrack/ceutrack_coesot.yaml` and `lib/train/base_functions.py` of the published code."""
    config = load_config("ceutrack")
    model = on_meta(config.model.name, **config.model.arguments)
    assert config.tuning.parameters == {"head.*": 1.0, "*": 0.1}
    assert model.modalities == 2
    train, data = config.train, config.data
    assert (train.lr, train.weight_decay, train.epochs, train.drop_epoch, train.drop_factor) == (1e-4, 1e-4, 50, 40, 0.1)
    assert (train.batch, train.samples, train.clip, train.schedule) == (32, 60000, 0.1, "step")
    assert train.losses.model_dump() == {"focal": 1.0, "giou": 1.0, "l1": 14.0}
    assert (data.max_gap, data.search_jitter.centre, data.search_jitter.scale) == (100, 3.0, 0.25)
    assert (data.grayscale, data.flip, data.independent_flip, data.brightness) == (0.05, 0.0, 0.0, 0.0)
