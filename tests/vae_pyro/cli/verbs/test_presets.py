"""``vae-pyro presets``: every reference configuration with its source."""

from tests.vae_pyro.cli.calls import done
from vae_pyro.models.presets import PRESETS


def test_every_preset_is_listed() -> None:
    shown = done("presets")
    assert all(name in shown for name in PRESETS)
    assert "Burda" in shown
