import pytest
import torch

from mstrack.config import load_config
from mstrack.errors import UserError
from mstrack.footprint import kept_bytes
from mstrack.machine import installed_memory
from mstrack.models import create_model
from mstrack.models.blocks import Block
from mstrack.training import train


def tiny(name: str, **arguments):
    return create_model(name, width=32, depth=4, heads=2, **arguments).train()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["mst-tiny", "sdstrack-tiny", "vipt-tiny", "ceutrack-tiny"])
def test_each_further_pair_keeps_the_same(name, precision):
    network = tiny(name)
    two, three, five = (kept_bytes(network, pairs, precision) for pairs in (2, 3, 5))
    assert 0 < three - two < three / 2
    assert five - three == pytest.approx(2 * (three - two), rel=0.01)


def test_what_is_kept_is_what_the_gradients_need():
    network = tiny("mst-tiny", cross_layers=(1, 3))
    whole = kept_bytes(network)
    tokens = 4 * sum(p.shape[1] * p.shape[2] for p in (network.position_template, network.position_search))
    blocks = 2 * 4 + 2 * 2  # a cross-modal block has the tokens of both streams
    at_least = 1 + 3 + 1 + 1 + 4 + 4  # norms, queries, keys and values, the mixture, the MLP's middle before and after GELU
    assert blocks * at_least * tokens < whole < 2 * blocks * at_least * tokens
    for module in network.modules():
        if isinstance(module, Block):
            module.checkpointed = True
    assert kept_bytes(network) < whole / 3
    assert kept_bytes(tiny("mst-tiny").requires_grad_(False)) == 0


def test_measuring_leaves_no_trace():
    network = tiny("ostrack-tiny", drop_path=0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    drawn = torch.get_rng_state()
    kept_bytes(network)
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_a_batch_beyond_the_memory_is_refused(tmp_path):
    config = load_config("quickstart", [f"run.out={tmp_path}/run", "train.batch=100000000", "train.samples=100000000"])
    with pytest.raises(UserError, match=r"100000000 pairs at once need \d+ GB .* About \d+ fit: train.accumulate=N"):
        train(config)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_memory_of_the_machine_is_that_of_the_system():
    installed = installed_memory()
    assert installed is None or 1e8 < installed < 1e15
