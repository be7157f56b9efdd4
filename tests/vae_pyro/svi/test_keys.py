"""Which program a step finds, and how many there can be."""

import pytest

from tests.vae_pyro.svi.programs import (
    data,
    small_vae,
    torch_svi,
)
from vae_pyro.svi import keys
from vae_pyro.svi.compiled_svi import SVIFallbackWarning
from vae_pyro.svi.forms import WholeForm


def test_shapes_and_modes_have_programs_of_their_own() -> None:
    x, vae = data(), small_vae()
    svi = torch_svi(vae, compile=False)
    for rows in (40, 40, 7, 40, 7):
        svi.step(x[:rows])
    assert len(svi._programs) == 2
    vae.eval()
    svi.step(x)
    assert len(svi._programs) == 3
    svi.recompile()
    assert len(svi._programs) == 0


def test_programs_are_bounded_and_a_stale_one_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_PROGRAMS", 2)
    x, vae = data(), small_vae()
    svi = torch_svi(vae, compile=False)
    for rows in (40, 9):
        svi.step(x[:rows])
    with pytest.warns(SVIFallbackWarning, match="more than 2 combinations of arguments"):
        svi.step(x[:5])
    assert len(svi._programs) == 2
    svi.step(x[:9])
    first, second = svi._programs
    assert (first.steps, second.steps) == (1, 2)


@pytest.mark.usefixtures("uncompiled")
def test_options_that_change_in_a_full_table_are_traced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_PROGRAMS", 1)
    svi = torch_svi(small_vae())
    svi.step(data())
    (before,) = svi._programs
    svi.optimizer.param_groups[0]["betas"] = (0.5, 0.9)
    svi.step(data())
    (after,) = svi._programs
    assert after is not before
    assert isinstance(after.form, WholeForm)
