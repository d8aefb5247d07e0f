"""The paper's Fig. 6: sensitivities of the auxiliary stream before tuning and after."""

from pathlib import Path

from mstrack import checkpoint
from mstrack.assembly import build_model
from mstrack.config import load_config
from mstrack.distributed import choose_device
from mstrack.report import SensitivityPicture
from mstrack.sensitivity import measure_sensitivity


def picture_sensitivities(run: Path) -> list[SensitivityPicture]:
    """Sensitivity of the first and last attention matrix of the auxiliary stream on training pairs.

    Args:
        run: Folder of a finished training of a dual-stream network.
    """
    config = load_config(run / "config.yaml")
    before = build_model(config)
    after = checkpoint.load(run / "model.safetensors")
    wanted = tuple(f"blocks_aux.{i}.attn.qkv.weight" for i in (0, before.depth - 1))
    device = choose_device(config.run.device)
    first, second = (measure_sensitivity(network.to(device), config, wanted) for network in (before, after))
    return [SensitivityPicture(name, *(found[name].double().cpu().numpy() for found in (first, second))) for name in first]
