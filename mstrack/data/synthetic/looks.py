"""Every knob of the embedded benchmark: how often, how strong, and how the splits differ."""

from dataclasses import dataclass, replace

from mstrack.data.sequence import MODALITIES

Range = tuple[float, float]
"""Low and high, drawn uniformly."""

SIDE = 128
"""Width and height of a frame in pixels."""
ABSENT_BELOW = 0.1
"""A target of which less than this share of pixels is visible is absent."""

COLOUR_CONDITIONS: tuple[tuple[str, ...], ...] = (
    ("low_light",),
    ("glare",),
    ("camouflage",),
    ("blur",),
    ("low_light", "glare"),
    (),
)
"""What the colour camera suffers from; sequence i has entry i modulo their number, so that every split is balanced."""
SITUATIONS = {"occlusion": 0.3, "fast_motion": 0.2, "scale_change": 0.3}
"""Probability that a sequence shows the situation."""
FAILURES = {"thermal": "thermal_crossover", "event": "event_silence", "depth": "depth_holes"}
"""The way in which each modality of its own fails; independent of the others and of the colour camera."""
FAILURE_RATE = 0.25
LOOK_ALIKE_RATE = 0.3
"""Probability that a distractor has the shape and colours of the target."""
DISTRACTORS = (2, 4)


@dataclass(frozen=True)
class Look:
    """The statistics of one split. Lengths are pixels, depths millimetres, intensities shares of full scale."""

    hue: Range = (0, 360)
    """Degrees; outside (0, 360) it wraps."""
    saturation: Range = (0.15, 0.75)
    textures: tuple[str, ...] = ("blotches", "stripes", "bricks", "foliage", "asphalt")
    shapes: tuple[str, ...] = ("person", "car", "ball", "animal", "crate", "van", "boat", "kite")
    grain: Range = (14, 48)
    """Size of the largest features of the background."""
    size: Range = (15, 30)
    """Square root of the area of the target's box."""
    speed: Range = (0.6, 2.0)
    """Of the target in the image, pixels per frame; `fast_speed` with `fast_motion`."""
    fast_speed: Range = (4.0, 6.5)
    zoom: Range = (0.22, 0.4)
    """Largest change of the logarithm of the size with `scale_change`."""

    clean_noise: Range = (0.005, 0.015)
    exposure: Range = (0.22, 0.45)
    """`low_light`: what is left of the signal."""
    dark_noise: Range = (0.01, 0.02)
    glare: Range = (0.35, 0.7)
    """`glare`: light added at its centre; its radius is `glare_radius` times the size of the target."""
    glare_radius: Range = (0.7, 1.1)
    camouflage: Range = (0.5, 0.75)
    """`camouflage`: share of the background in the colours of the target."""
    defocus: Range = (1.2, 2.2)
    shake: Range = (4, 9)
    """`blur`: standard deviation of the defocus, and length of the motion blur."""

    heat_contrast: Range = (0.25, 0.5)
    """Temperature of an object above its surroundings; `cold_rate` of the objects are below them."""
    cold_rate: float = 0.1
    crossover: Range = (0.0, 0.05)
    """`thermal_crossover`: what is left of the target's contrast."""
    heat_noise: Range = (0.015, 0.03)
    depth_noise: Range = (0.002, 0.006)
    """Standard deviation as a share of the depth, at 4 m."""
    hole_rate: Range = (0.02, 0.08)
    """Share of the frame without a measurement; `lost_rate` with `depth_holes`."""
    lost_rate: Range = (0.22, 0.36)
    event_threshold: Range = (0.1, 0.17)
    """Change of the logarithm of the intensity that fires an event."""
    event_noise: Range = (0.002, 0.008)


PRETRAIN = Look()
TRAIN = replace(
    PRETRAIN,
    hue=(-40, 150),
    textures=("blotches", "stripes", "asphalt"),
    shapes=("person", "car", "ball", "animal", "crate"),
)
VAL = replace(
    PRETRAIN,
    hue=(40, 230),
    textures=("blotches", "bricks", "asphalt"),
    shapes=("person", "car", "animal", "crate", "boat"),
    grain=(12, 40),
    exposure=(0.18, 0.4),
    heat_contrast=(0.22, 0.45),
    heat_noise=(0.02, 0.035),
)
TEST = replace(
    PRETRAIN,
    hue=(130, 320),
    textures=("stripes", "bricks", "foliage"),
    shapes=("person", "car", "van", "boat", "kite"),
    grain=(10, 34),
    exposure=(0.15, 0.36),
    dark_noise=(0.012, 0.025),
    glare=(0.4, 0.8),
    heat_contrast=(0.2, 0.42),
    cold_rate=0.2,
    heat_noise=(0.02, 0.04),
    depth_noise=(0.003, 0.008),
    event_threshold=(0.12, 0.2),
    event_noise=(0.004, 0.012),
)
LOOKS = {"pretrain": PRETRAIN, "train": TRAIN, "val": VAL, "test": TEST}


def relevant(attributes: tuple[str, ...], modality: str) -> tuple[str, ...]:
    """The attributes without the failures of other modalities than `modality`."""
    others = {FAILURES[name] for name in MODALITIES if name != modality}
    return tuple(name for name in attributes if name not in others)
