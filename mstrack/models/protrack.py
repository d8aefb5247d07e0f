"""ProTrack (Yang et al., ACM MM 2022): the two images are mixed to one, and a frozen RGB tracker tracks the mixture."""

from functools import partial
from typing import Unpack

from torch import Tensor

from mstrack.errors import UserError
from mstrack.models.network import Shared
from mstrack.models.ostrack import TINY, OneStream


class ProTrack(OneStream):
    """A one-stream tracker on `share` x RGB + (1 - `share`) x auxiliary image; nothing trains by default.

    Any checkpoint of a one-stream RGB tracker fits, and the other way round. The authors published results and no code; 0.95 is
    the share in a public re-implementation for RGB-T, which colours the auxiliary image by JET first. The mixture of normalised
    images is the normalised mixture, without its rounding to whole grey levels.

    Args:
        share: Of the RGB image in the mixture, from 0 to 1.
        elimination: As in `OneStream`.
        others: As in `Network`.
    """

    modalities = 2

    def __init__(self, *, share: float = 0.95, elimination: bool = False, **shared: Unpack[Shared]) -> None:
        super().__init__(elimination=elimination, **shared)
        if not 0.0 <= share <= 1.0:
            raise UserError(f"share={share}: expected the share of the RGB image in the mixture, from 0 to 1.")
        self.share = share
        self._train_only()

    def features(self, template: Tensor, search: Tensor) -> Tensor:
        """Tokens of the mixture after the final norm, template first: B x (Nz + Nx) x width."""
        return self._pass(self._mix(template), self._mix(search))

    def _mix(self, images: Tensor) -> Tensor:
        """B x 2 x 3 x H x W -> B x 3 x H x W."""
        return self.share * images[:, 0] + (1.0 - self.share) * images[:, 1]


protrack_b256 = ProTrack
protrack_b384 = partial(ProTrack, template_size=192, search_size=384, search_factor=5.0)
protrack_tiny = partial(ProTrack, search_factor=4.0, **TINY)
