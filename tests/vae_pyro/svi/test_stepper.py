"""The forms of a step, one after another and in turn."""

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

from tests.vae_pyro.svi.programs import (
    data,
    small_vae,
    torch_svi,
    trajectory,
    values,
)
from vae_pyro.svi.compiled_svi import CompiledSVI, SVIFallbackWarning
from vae_pyro.svi.forms import GradientForm, WholeForm


@pytest.mark.usefixtures("uncompiled")
def test_the_form_of_a_step_is_an_argument_of_the_step() -> None:
    """Stock, traced and whole steps in turn are one trajectory, of parameters and of the optimizer's state."""
    x = data()
    vae = small_vae()
    stock = trajectory(torch_svi(vae, compile="never"), x)
    expected = values(vae)
    pyro.clear_param_store()
    vae = small_vae()
    svi = torch_svi(vae)
    torch.manual_seed(1)
    losses = [float(svi.take_step((x,), compile=mode)) for mode in ("never", False, True, "never", True, False)]
    assert losses == pytest.approx(stock, rel=1e-9)
    for ours, theirs in zip(values(vae), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)


@pytest.mark.usefixtures("uncompiled")
def test_a_program_is_traced_then_compiled_and_whole_where_a_rule_covers_the_optimizer() -> None:
    x, vae = data(), small_vae()
    svi = torch_svi(vae, compile=2)
    assert svi.trace(x)
    (traced,) = svi._programs
    assert svi.trace(x)
    forms = [type(traced.form)]
    for _ in range(3):
        svi.step(x)
        forms.append(type(traced.form))
    assert forms == [GradientForm, GradientForm, GradientForm, WholeForm]
    assert list(svi._programs) == [traced]
    adagrad = torch.optim.Adagrad(vae.parameters())
    svi = CompiledSVI(vae.model, vae.guide, adagrad, Trace_ELBO(), compile=True)
    with pytest.warns(SVIFallbackWarning, match="no rule for the optimizer Adagrad"):
        svi.step(x)
    assert [type(traced.form) for traced in svi._programs] == [GradientForm]
