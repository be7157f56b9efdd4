"""Dropout and batch normalisation: in training mode while a model is fitted, and in evaluation mode everywhere else."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vae_pyro.training.test_training import interrupt_after, same
from vae_pyro import VAE, FitConfig, VAEConfig, evaluate, fit
from vae_pyro.core.isolation import seeded
from vae_pyro.nn import ENCODERS
from vae_pyro.parallel.signals import FitInterruptedError
from vae_pyro.runs.folder import RunFolder
from vae_pyro.svi.compiled_svi import CompiledSVI

NETWORK = "mlp:hidden=[8],dropout=0.2,batch_norm=true"
CONFIG = FitConfig(epochs=3, batch_size=20, compile=False, checkpoint_seconds=0)


def build() -> VAE:
    return VAE(VAEConfig(x_shape=(5,), latent_dim=2, likelihood="gaussian", encoder=NETWORK, decoder=NETWORK), seed=1)


def data() -> Tensor:
    with seeded(0):
        return 3 + torch.randn(101, 5)  # the last batch of an epoch has one row


def test_off_by_default_and_units_are_dropped_and_normalised_while_training() -> None:
    names = ["Linear", "BatchNorm", "ReLU", "Dropout"]
    with seeded(0):
        plain = ENCODERS.build(ENCODERS.resolve("mlp:hidden=[8]"), (5,))
        both = ENCODERS.build(ENCODERS.resolve(NETWORK), (5,))
    assert [type(part).__name__ for part in plain.layers] == names[::2]
    assert [type(part).__name__ for part in both.layers] == names
    with seeded(0):
        x = 5 + torch.randn(4000, 5)
        h = both(x)
    assert float((h == 0).float().mean()) == pytest.approx(1 - 0.8 / 2, abs=0.03)
    both.eval()
    assert torch.equal(both(x), both(x))
    with seeded(1):
        assert not torch.equal(both(x[:7]), both.train()(x[:7]))
        gated = ENCODERS.build(ENCODERS.resolve(NETWORK + ",activation=gated"), (5,))
        assert gated(x[:3]).shape == (3, 8)
        alone = gated(x[:1])  # a batch of one row has no variance of its own
    assert bool(alone.isfinite().all())
    for wrong in ("1.0", "-0.1"):
        with pytest.raises(ValueError, match="dropout"):
            ENCODERS.resolve(f"mlp:dropout={wrong}")


def test_steps_are_traced_and_move_the_running_statistics() -> None:
    x, vae = data(), build()
    fit(vae, x, config=CONFIG, seed=2)  # a step that cannot be traced, or is not the stock step, warns: an error here
    moved = [value for name, value in vae.state_dict().items() if name.endswith("running_mean")]
    assert len(moved) == 2
    assert all(float(value.abs().max()) > 0 for value in moved)


def test_a_fitted_model_is_in_evaluation_mode_and_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = data()
    whole, parts, fresh = build(), build(), build()
    options: dict[str, Any] = {"validation": x[:40], "config": CONFIG, "seed": 7}
    fit(whole, x, **options)
    assert not any(module.training for module in whole.modules())
    with monkeypatch.context() as patch:
        patch.setattr(CompiledSVI, "take_step", interrupt_after(8, signal.SIGINT))
        with pytest.raises(FitInterruptedError):
            fit(parts, x, out=tmp_path / "run", **options)
    fit(fresh, x, out=tmp_path / "run", resume=True, **options)
    assert same(fresh, whole)
    loaded = RunFolder(tmp_path / "run").load_model()
    assert same(loaded, whole)
    assert torch.equal(loaded.reconstruct(x, seed=1), whole.reconstruct(x, seed=1))
    before = evaluate(whole, x, num_draws=10, seed=1).summary()
    assert evaluate(whole.train(), x, num_draws=10, seed=1).summary() == before
    assert same(whole, fresh)
