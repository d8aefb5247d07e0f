"""Networks with random weights whose boxes move, and clips to track: for what must be equal while it moves."""

import cv2
import numpy as np
import torch

from mstrack import create_model
from mstrack.data.sequence import Frame
from mstrack.models import Network

BOX = (40.0, 30.0, 24.0, 18.0)


def lively(name: str, **kwargs: object) -> Network:
    """A fresh network whose boxes move: the towers' last layers are scaled up, sizes stay about a quarter of the crop.

    Scores stay below their bound, where cells would tie.
    """
    torch.manual_seed(3)
    model = create_model(name, **kwargs)
    with torch.no_grad():
        for parameter, scale in ((model.head.score[-1].weight, 5.0), (model.head.size[-1].weight, 1.0)):
            parameter.mul_(scale)
        model.head.size[-1].bias.fill_(-1.1)
        model.head.offset[-1].bias.fill_(0.5)
    return model


def clip_of(seed: int, length: int, aux: bool = True) -> list[Frame]:
    """Frames of a size of their own."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(60, 130)), int(rng.integers(80, 160)), 3)
    coarse = rng.integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    ground = [cv2.resize(c, shape[1::-1], interpolation=cv2.INTER_CUBIC).astype(np.int64) for c in coarse]
    frames = []
    for t in range(length):
        moved = (np.roll(g, 3 * t, axis=1) + rng.integers(-20, 20, shape) for g in ground)
        rgb, other = (np.clip(image, 0, 255).astype(np.uint8) for image in moved)
        frames.append(Frame(rgb, other if aux else None))
    return frames
