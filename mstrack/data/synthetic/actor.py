"""A thing that moves before the camera: where its sprite falls in the image at each moment."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.data.synthetic.appearance import Field, Sprite
from mstrack.data.synthetic.looks import SIDE

Path = NDArray[np.float64]
"""Numbers over time."""


@dataclass(frozen=True)
class Actor:
    """A sprite and how it moves, T steps.

    Attributes:
        sprite: What is drawn.
        centre: (T, 2) pixels.
        zoom: (T,) factor.
        angle: (T,) radians.
        contrast: (T,) heat above the surroundings at the warmest part, share of full scale.
        depth: (T,) millimetres.
    """

    sprite: Sprite
    centre: Path
    zoom: Path
    angle: Path
    contrast: Path
    depth: Path

    def outline(self, t: int) -> NDArray[np.float64]:
        """(4,) left, top, right, bottom of the hull."""
        points = self.sprite.hull @ self._turn(t).T + self.centre[t]
        return np.concatenate([points.min(0), points.max(0)])

    def place(self, t: int) -> tuple[tuple[slice, slice], Field, Field] | None:
        """The area of the image that the sprite falls in, and its colour (h, w, 4) and warmth (h, w) there; None outside."""
        low = np.maximum(np.floor(self.outline(t)[:2]) - 2, 0).astype(int)
        high = np.minimum(np.ceil(self.outline(t)[2:]) + 2, SIDE).astype(int)
        if (high <= low).any():
            return None
        turn = self._turn(t)
        rows, columns = self.sprite.warmth.shape
        shift = self.centre[t] - 0.5 - low + turn @ (0.5 - np.array([columns, rows]) / 2)
        matrix = np.column_stack([turn, shift])
        size = (high - low).tolist()
        colour = cv2.warpAffine(self.sprite.colour, matrix, size, flags=cv2.INTER_LINEAR)
        warmth = cv2.warpAffine(self.sprite.warmth, matrix, size, flags=cv2.INTER_LINEAR)
        return (slice(low[1], high[1]), slice(low[0], high[0])), colour, warmth

    def _turn(self, t: int) -> NDArray[np.float64]:
        c, s = np.cos(self.angle[t]) * self.zoom[t], np.sin(self.angle[t]) * self.zoom[t]
        return np.array([[c, -s], [s, c]])
