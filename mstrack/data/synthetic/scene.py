"""The world of one sequence of the embedded benchmark and what is in view at each moment, before any sensor spoils it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.data.synthetic.actor import Actor, Path
from mstrack.data.synthetic.appearance import (
    Field,
    Sprite,
    make_noise,
    make_pillar,
    make_sprite,
    make_texture,
    paint,
    pick_colour,
)
from mstrack.data.synthetic.looks import ABSENT_BELOW, DISTRACTORS, LOOK_ALIKE_RATE, SIDE, Look

MARGIN = 56
"""Pixels of the world beyond the first view on each side; further out it is mirrored."""
NEAR, FAR, WALL = 2600.0, 7200.0, 7600.0
"""Depth in millimetres of the ground at the lower and upper edge of the first view, and of the wall behind."""
PILLAR_DEPTH = 900.0
NORMAL_HEAT = 0.35
"""Mean temperature of the surroundings, share of full scale."""


@dataclass(frozen=True)
class Moment:
    """What an ideal camera would see, S x S pixels.

    Attributes:
        colour: (S, S, 3) red, green, blue in [0, 1].
        heat: (S, S) temperature, share of full scale.
        depth: (S, S) millimetres.
        target: (S, S) opacity of the whole target, whatever hides it.
        visible: (S, S) opacity of what can be seen of it.
        box: (4,) x, y, w, h of the whole target, cut at the image border.
        present: Whether enough of the target can be seen.
    """

    colour: Field
    heat: Field
    depth: Field
    target: Field
    visible: Field
    box: NDArray[np.float64]
    present: bool


class Scene:
    """Background, camera, target, distractors and occluder of one sequence.

    Attributes change what they say and nothing else: what is drawn from `rng` does not depend on them, but for an occluder
    at the end.

    Moment -1 is what was in view one frame before the first (an event camera compares with it).

    Args:
        rng: The source of everything random; it is used up here, `moment` draws nothing.
        look: The statistics of the split.
        attributes: Names from `looks`; those that belong to the sensors are ignored.
        frames: The number of moments from 0.
    """

    def __init__(self, rng: np.random.Generator, look: Look, attributes: tuple[str, ...], frames: int) -> None:
        self.steps = frames + 1
        self.attributes = list(attributes)
        self._rng, self._look = rng, look
        self._build_world()
        activity = self._draw_activity()
        self.camera = self._wander(np.zeros(2), rng.uniform(14, 40, 2), rng.uniform(0.5, 2.0), activity)
        shake = rng.normal(0, rng.uniform(0.1, 0.5), (self.steps, 2)) * np.minimum(activity, 1)[:, None]
        self.camera += shake
        self._cast_target(activity, shake)
        self.actors = [self.target]
        for _ in range(rng.integers(DISTRACTORS[0], DISTRACTORS[1] + 1)):
            self._cast_distractor()
        if "occlusion" in attributes:
            self._cast_occluder()
        light = 0.75 + 0.5 * make_noise(rng, SIDE, SIDE, 90, octaves=1)
        self._light = light[..., None] * rng.uniform(0.85, 1.1, 3).astype(np.float32)

    def moment(self, t: int) -> Moment:
        """What is in view at frame t, -1 <= t < frames."""
        step = t + 1
        matrix = np.column_stack([np.eye(2), MARGIN + self.camera[step]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (SIDE, SIDE)
        world = cv2.warpAffine(self._surface, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        depth = cv2.warpAffine(self._relief, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        colour, heat = np.ascontiguousarray(world[..., :3]), np.ascontiguousarray(world[..., 3])
        ambient = heat.copy()
        target, visible = np.zeros(size, np.float32), np.zeros(size, np.float32)
        for actor in sorted(self.actors, key=lambda a: -a.depth[step]):
            placed = actor.place(step)
            if placed is None:
                continue
            area, drawn, warmth = placed
            opacity = drawn[..., 3]
            rest = 1 - opacity
            colour[area] = colour[area] * rest[..., None] + drawn[..., :3]
            heat[area] = heat[area] * rest + ambient[area] * opacity + warmth * np.float32(actor.contrast[step])
            depth[area][opacity > 0.5] = actor.depth[step]
            visible[area] *= rest
            if actor is self.target:
                target[area] = visible[area] = opacity
        box = np.clip(self.target.outline(step), 0, SIDE)
        box[2:] -= box[:2]
        present = bool(visible.sum() >= ABSENT_BELOW * target.sum() > 0)
        return Moment(colour * self._light, heat, depth, target, visible, box, present)

    def _build_world(self) -> None:
        """Ground, wall behind it and things standing around, as colours + heat and as depth."""
        rng, look = self._rng, self._look
        side = SIDE + 2 * MARGIN
        self._palettes = [[pick_colour(rng, look.hue, look.saturation) for _ in range(3)] for _ in range(2)]
        kinds = rng.choice(look.textures, 2)
        ground, wall = (
            paint(make_texture(rng, kind, side, rng.uniform(*look.grain)), colours)
            for kind, colours in zip(kinds, self._palettes, strict=True)
        )
        horizon = MARGIN + rng.uniform(0.0, 0.35) * SIDE
        rows = np.arange(side, dtype=np.float32)[:, None]
        behind = np.broadcast_to(rows < horizon, (side, side))
        colour = np.where(behind[..., None], wall, ground)
        depth = np.where(behind, np.float32(WALL), _ground_depth(rows - MARGIN))
        heat = NORMAL_HEAT + 0.16 * (make_noise(rng, side, side, 60, octaves=2) - 0.5)
        heat += np.where(behind, np.float32(rng.uniform(-0.1, 0.08)), np.float32(0))
        for _ in range(rng.integers(6, 14)):
            w, h = rng.uniform(8, 42, 2)
            x, foot = rng.uniform(0, side), rng.uniform(horizon - 4, side)
            area = (slice(int(max(foot - h, 0)), int(foot) + 1), slice(int(max(x - w / 2, 0)), int(x + w / 2) + 1))
            if colour[area].size:
                patch = self._cut_surface(colour, colour[area].shape[:2])
                colour[area] = 0.5 * patch + 0.5 * pick_colour(rng, look.hue, look.saturation)
                depth[area] = _ground_depth(foot - MARGIN) * rng.uniform(0.85, 1.0)
                heat[area] += rng.uniform(-0.14, 0.18)
        heat += 0.1 * (0.5 - colour.mean(-1))
        self._surface = np.concatenate([colour, heat[..., None]], axis=-1).astype(np.float32)
        self._relief = np.ascontiguousarray(depth, dtype=np.float32)

    def _cut_surface(self, picture: Field, shape: tuple[int, ...]) -> Field:
        """A random piece of (H, W, C) `picture` of the given height and width."""
        top, left = (self._rng.integers(0, n - m + 1) for n, m in zip(picture.shape, shape, strict=False))
        return picture[top : top + shape[0], left : left + shape[1]]

    def _draw_activity(self) -> Path:
        """(T,) how much moves at each moment, about 1; with `event_silence` camera and target rest most of the time."""
        rng = self._rng
        time = np.arange(self.steps)
        swing = np.sin(time * rng.uniform(0.1, 0.35) + rng.uniform(0, 2 * np.pi))
        pause = rng.uniform(0.3, 0.6)
        if "event_silence" not in self.attributes:
            return 1 + 0.4 * swing
        return np.clip(4 * (swing - pause), 0, 1.5)

    def _wander(self, centre: NDArray, reach: NDArray, speed: float, activity: Path) -> Path:
        """(T, 2) smooth path around `centre`, within `reach`, of the given root mean square speed where activity is 1."""
        rng = self._rng
        phase = np.cumsum(activity)[:, None] * speed / (0.63 * np.hypot(*reach))
        starts = rng.uniform(0, 2 * np.pi, (2, 2))
        pace = rng.uniform(0.8, 1.2, 2)
        return centre + reach * (0.75 * np.sin(phase * pace + starts[0]) + 0.25 * np.sin(1.9 * phase * pace + starts[1]))

    def _cast_target(self, activity: Path, shake: Path) -> None:
        rng, look = self._rng, self._look
        self._shape, self._size = str(rng.choice(look.shapes)), rng.uniform(*look.size)
        self._paints = {name: pick_colour(rng, look.hue, look.saturation) for name in ("body", "trim")}
        self._paints["dark"] = 0.35 * pick_colour(rng, look.hue, look.saturation)
        sprite = make_sprite(rng, self._shape, self._size, self._paints)
        zoom = self._draw_zoom("scale_change" in self.attributes)
        speed = rng.uniform(*(look.fast_speed if "fast_motion" in self.attributes else look.speed))
        reach = np.minimum(rng.uniform(22, 40, 2), SIDE / 2 - 2 - sprite.hull.max(0) * min(zoom.max(), 1.3))
        offset = rng.uniform(-1, 1, 2) * np.maximum(40 - reach, 0) / 2
        centre = self._wander(SIDE / 2 + offset, np.maximum(reach, 12), speed, activity) - shake
        self._haunt = centre
        self._disguise(sprite)
        contrast = self._draw_contrast()
        first, last = rng.uniform(*look.crossover, 2)
        if "thermal_crossover" in self.attributes:
            contrast = np.sign(contrast) * np.linspace(first, last, self.steps)
        self.target = self._cast(sprite, centre, zoom, rng.uniform(0.68, 0.9), contrast)

    def _disguise(self, sprite: Sprite) -> None:
        """With `camouflage`, colours of the ground that the target moves over, finely grained, over the sprite's own."""
        rng, (rows, columns) = self._rng, sprite.warmth.shape
        share = np.float32(rng.uniform(*self._look.camouflage))
        grain = 0.72 + 0.56 * make_noise(rng, rows, columns, 3, octaves=1)[..., None]
        if "camouflage" in self.attributes:
            left, top = np.rint(MARGIN + (self._haunt + self.camera).mean(0) - (columns / 2, rows / 2)).astype(int)
            texture = self._surface[top : top + rows, left : left + columns, :3] * grain
            sprite.colour[..., :3] *= 1 - share
            sprite.colour[..., :3] += share * texture * sprite.opacity[..., None]

    def _cast_distractor(self) -> None:
        """Something else that moves: a look-alike stays near the target, others wander or are parked."""
        rng, look = self._rng, self._look
        alike = rng.random() < LOOK_ALIKE_RATE
        if alike and "look_alike" not in self.attributes:
            self.attributes.append("look_alike")
        zoom = self._draw_zoom(False)
        shape, paints = self._shape, self._paints
        if not alike:
            shape = str(rng.choice(look.shapes))
            paints = {name: pick_colour(rng, look.hue, look.saturation) for name in paints}
        size = self._size * rng.uniform(0.85, 1.15) if alike else rng.uniform(*look.size)
        sprite = make_sprite(rng, shape, size, paints)
        if alike:
            self._disguise(sprite)
        contrast = self._draw_contrast()
        if rng.random() < 0.3:
            contrast = np.full(self.steps, self.target.contrast[0])
        if alike:
            clearance = 0.75 * (size + self._size)
            reach = rng.uniform(0.6, 1.0)
            turn = np.cumsum(rng.uniform(0.03, 0.09) * (1 + rng.normal(0, 0.3, self.steps))) * rng.choice((-1, 1))
            angle = rng.uniform(0, 2 * np.pi) + turn
            radius = clearance * (1 + reach * (0.5 + 0.5 * np.cos(0.1 * np.arange(self.steps) + rng.uniform(0, 6))))
            smooth = self.target.centre * 0.7 + 0.3 * self.target.centre.mean(0)
            centre = smooth + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        elif rng.random() < 0.5:
            centre = self._away_from_target() - self.camera + self.camera[1]
        else:
            steady = np.ones(self.steps)
            centre = self._wander(self._away_from_target(), rng.uniform(15, 45, 2), rng.uniform(*look.speed), steady)
        self.actors.append(self._cast(sprite, centre, zoom, rng.uniform(0.6, 0.98), contrast))

    def _away_from_target(self) -> NDArray:
        """A point of the image at some distance of where the target starts."""
        points = self._rng.uniform(8, SIDE - 8, (8, 2))
        return points[np.argmax(np.linalg.norm(points - self.target.centre[1], axis=1) > 2 * self._size)]

    def _cast_occluder(self) -> None:
        """A pillar that passes before the target and hides it entirely for a few frames."""
        rng = self._rng
        speed = rng.uniform(2.5, 5.0)
        hidden = rng.uniform(2, max(2, min(7, self.steps / 5)))
        box = self.target.outline(self.steps // 2)
        width = box[2] - box[0] + hidden * speed
        sprite = make_pillar(width, SIDE + 24, self._cut_surface(self._surface, (SIDE, SIDE))[..., :3])
        when = rng.uniform(0.35, 0.75) * self.steps
        when = max(when, (width + self._size) / speed / 2 + 3)
        passing = rng.choice((-1, 1)) * speed * (np.arange(self.steps) - when)
        centre = np.stack([self.target.centre[:, 0] + passing, np.full(self.steps, SIDE / 2)], axis=-1)
        still = np.zeros(self.steps)
        pillar = Actor(sprite, centre, still + 1, still, still, still + PILLAR_DEPTH)
        self.actors.append(pillar)

    def _draw_zoom(self, changing: bool) -> Path:
        """(T,) factor of the size of the sprite."""
        rng, time = self._rng, np.arange(self.steps)
        strength = rng.uniform(*self._look.zoom) if changing else rng.uniform(0.02, 0.08)
        return np.exp(strength * np.sin(time * rng.uniform(0.06, 0.14) + rng.uniform(0, 2 * np.pi)))

    def _draw_contrast(self) -> Path:
        """(T,) heat of an object above its surroundings, slowly drifting; some objects are colder."""
        rng, look = self._rng, self._look
        sign = -0.7 if rng.random() < look.cold_rate else 1.0
        drift = 1 + 0.1 * np.sin(np.arange(self.steps) * 0.1 + rng.uniform(0, 6))
        return sign * rng.uniform(*look.heat_contrast) * drift

    def _cast(self, sprite: Sprite, centre: Path, zoom: Path, nearness: float, contrast: Path) -> Actor:
        """An actor that stands before the ground: its depth is `nearness` times that of the ground at its feet."""
        rng, time = self._rng, np.arange(self.steps)
        angle = rng.uniform(0.02, 0.2) * np.sin(time * rng.uniform(0.05, 0.25) + rng.uniform(0, 6))
        depth = nearness * _ground_depth(centre[:, 1] + sprite.hull[:, 1].max() * zoom)
        return Actor(sprite, centre, zoom, angle, contrast, depth)


def _ground_depth(row: NDArray | float) -> NDArray:
    """Depth in millimetres of the ground at a row of the first view: linear in its inverse, as for a level plane."""
    share = np.clip(np.asarray(row, np.float32) / SIDE, 0, 1.3)
    return 1 / (1 / FAR + share * (1 / NEAR - 1 / FAR))
