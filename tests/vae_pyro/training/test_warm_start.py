"""Going on from a fitted run: its weights and nothing else, its draws beside new data, and what is kept of the old."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vae_pyro.training.fits import SMALL, bits, short
from vae_pyro import VAE, Dataset, RunFolder, VAEConfig, fit, load_data
from vae_pyro.core.files import RunError
from vae_pyro.data.split import fingerprint
from vae_pyro.runs.weights import weights
from vae_pyro.training.settings import assemble
from vae_pyro.training.warm_start import (
    base_settings,
    continue_from,
    initialize_from,
    parent_of,
    require_parent,
)

# --- weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vae", "folder", "path", "text"])
def test_all_weights_and_buffers_are_copied(old: tuple[VAE, Path], kind: str) -> None:
    fitted, out = old
    source = {"vae": fitted, "folder": RunFolder(out), "path": out, "text": str(out)}[kind]
    vae = VAE(fitted.config, seed=9)
    before = bits(fitted)
    assert bits(vae) != before
    parent = initialize_from(vae, source)
    assert bits(vae) == before
    assert bool(vae.initialized)
    assert parent == parent_of(source)
    assert parent["run"] == (None if kind == "vae" else "old")
    if kind != "vae":
        assert parent["weights"] == RunFolder(out).weights_digest()
    next(vae.parameters()).data.add_(1.0)
    assert bits(fitted) == before  # a copy, not the same tensors


def test_statistics_stay_those_of_the_first_data() -> None:
    """A standardised input and the location of the output bias: new data of another size do not move them."""
    random = np.random.default_rng(0)
    first, second = (size * random.normal(size=(200, 4)).astype(np.float32) + size for size in (1.0, 30.0))
    config = VAEConfig(x_shape=(4,), latent_dim=2, likelihood="gaussian", encoder=SMALL)
    fitted = fit(VAE(config), first, config=short(1), progress=False).vae
    vae = VAE(config, seed=3)
    initialize_from(vae, fitted)
    fit(vae, second, config=short(1), progress=False)
    buffers = {name: tensor for name, tensor in vae.named_buffers() if name.endswith(("loc", "scale"))}
    assert buffers
    for name, tensor in fitted.named_buffers():
        if name in buffers:
            assert torch.equal(tensor, buffers[name])
    anew = fit(VAE(config, seed=3), second, config=short(1), progress=False).vae
    assert any(not torch.equal(tensor, buffers[name]) for name, tensor in anew.named_buffers() if name in buffers)


def test_a_fit_that_goes_on_is_that_of_the_copied_weights(data: Dataset, old: tuple[VAE, Path]) -> None:
    """One step with a tiny learning rate moves every weight by at most that, since Adam's moments start anew."""
    vae = VAE(old[0].config, seed=1)
    initialize_from(vae, old[1])
    fit(vae, data.train.take(slice(0, 64)), config=short(1, optimizer="adam:lr=1e-6"), progress=False)
    moved = [float((weights(vae)[name] - tensor).abs().max()) for name, tensor in weights(old[0]).items()
             if tensor.dtype.is_floating_point]  # fmt: skip
    assert 0 < max(moved) < 1.1e-6


def test_another_model_is_refused_by_name(old: tuple[VAE, Path]) -> None:
    fitted, out = old
    wider = VAE(fitted.config.replace(latent_dim=4))
    with pytest.raises(ValueError, match="latent_dim is 4 here and 3 there; leave it out.*without --init-from"):
        initialize_from(wider, out)
    more = VAE(fitted.config.replace(latent_dim=4, prior="normal"))
    with pytest.raises(ValueError, match="and 1 more differ"):
        initialize_from(more, out)
    shaped = VAE(VAEConfig(**{**fitted.config.model_dump(), "x_shape": (1, 4, 4)}))
    with pytest.raises(ValueError, match="x_shape.*bring the new data to the old shape"):
        initialize_from(shaped, out)
    started = VAE(fitted.config.replace(init="he"), seed=2)
    initialize_from(started, out)  # how weights would have started does not matter
    assert bits(started) == bits(fitted)


def test_what_was_never_fitted_or_finished_is_refused(old: tuple[VAE, Path], tmp_path: Path) -> None:
    vae = VAE(old[0].config)
    with pytest.raises(ValueError, match="was never fitted"):
        initialize_from(vae, VAE(old[0].config))
    with pytest.raises(RunError, match="no finished weights"):
        initialize_from(vae, tmp_path / "nothing")
    assert not bool(vae.initialized)


def test_a_file_of_a_run_is_no_run(old: tuple[VAE, Path]) -> None:
    with pytest.raises(RunError, match=r"config.json' is a file and no run folder; name the folder"):
        base_settings(old[1] / "config.json")


def test_a_resumed_run_has_the_parent_that_it_had(old: tuple[VAE, Path], tmp_path: Path) -> None:
    parent = parent_of(old[1])
    require_parent(None, None, tmp_path)
    require_parent(parent, {**parent, "run": "moved"}, tmp_path)
    with pytest.raises(RunError, match="began from 'old' with weights .*, but this call names new weights"):
        require_parent(parent, None, tmp_path)
    with pytest.raises(RunError, match="began from new weights, but this call names 'old'"):
        require_parent(None, parent, tmp_path)
    other = VAE(old[0].config, seed=1)
    with pytest.raises(RunError, match="'a VAE in memory'"):
        require_parent(parent, parent_of(other), tmp_path)
    assert parent_of(other) != parent_of(VAE(old[0].config, seed=2))
    assert parent_of(other) == parent_of(VAE(old[0].config, seed=1))


def test_settings_begin_with_those_of_the_run(old: tuple[VAE, Path], data: Dataset) -> None:
    base = base_settings(old[1])
    settings = assemble("breast_cancer", base={**base, "model": {}}, assignments=[(["data", "binarize"], "none")])
    assert settings.data.config.source == "breast_cancer"
    settings = assemble("digits", base=base, assignments=[(["fit", "epochs"], 7)])
    assert settings.model == old[0].config
    assert settings.fit == short(7)
    assert settings.seed == 5
    assert settings.data.config == data.config
    assert not {"source", "stream"} & set(base["data"])


# --- both together ------------------------------------------------------------------------------------------------


def test_data_and_vae_are_assembled(data: Dataset, old: tuple[VAE, Path]) -> None:
    begun = continue_from(old[1], data, replay=0.25, seed=3)
    assert bits(begun.vae) == bits(old[0])
    assert begun.parent == parent_of(old[1])
    n, v = len(data.train), len(data.validation)
    assert (len(begun.data.train), len(begun.data.validation)) == (n + round(n / 3), v + round(v / 3))
    assert begun.data.test is data.test
    replayed = begun.data.facts.replay
    assert replayed is not None
    assert replayed.share == 0.25
    assert replayed.draws == {"train": round(n / 3), "validation": round(v / 3)}
    assert replayed.fingerprint == fingerprint(begun.data.train, begun.data.validation)
    assert begun.data.facts.fingerprint == data.facts.fingerprint  # by which the new data are known again
    again = continue_from(old[0], data, replay=0.25, seed=3)
    assert again.data.facts.replay == replayed
    other = continue_from(old[1], data, replay=0.25, seed=4).data
    assert other.facts.replay is not None
    assert other.facts.replay.fingerprint != replayed.fingerprint
    assert not torch.equal(other.train.values, begun.data.train.values)
    assert not torch.equal(other.validation.values, begun.data.validation.values)
    assert not torch.equal(begun.data.train.values[n : n + 20], begun.data.validation.values[v : v + 20])
    plain = continue_from(old[1], data)
    assert plain.data is data
    fit(begun.vae, begun.data.train, validation=begun.data.validation, config=short(1), progress=False)


def test_what_does_not_join_is_refused(data: Dataset, old: tuple[VAE, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="from 0 to below 1, got 1"):
        continue_from(old[1], data, replay=1.0)
    with pytest.raises(ValueError, match="latent_dim is 9 here"):
        continue_from(old[1], data, model=old[0].config.replace(latent_dim=9))
    with pytest.raises(ValueError, match="'0/1, intensity at least half'.*cannot join them"):
        continue_from(old[1], load_data("digits", binarize="threshold"), replay=0.5)
    continue_from(old[1], load_data("digits", binarize="threshold"))  # without draws both are bits
    with pytest.raises(ValueError, match="bring them to its shape"):
        continue_from(old[1], load_data("breast_cancer"))
    streams = tmp_path / "big.npy"
    np.save(streams, (data.train.values * 15).to(torch.uint8).numpy())
    with pytest.raises(ValueError, match="streamed data; load them with stream=False"):
        continue_from(old[1], load_data(streams, binarize="dynamic", stream=True), replay=0.5)


def test_columns_of_other_names_are_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 2))
    for name, header in (("one", "length,width"), ("two", "width,length"), ("three", "length,width")):
        np.savetxt(tmp_path / f"{name}.csv", rows, delimiter=",", header=header, comments="")
    one = load_data(tmp_path / "one.csv")
    vae = VAE(VAEConfig(x_shape=(2,), latent_dim=1, likelihood="gaussian", encoder=SMALL))
    fit(vae, one.train, config=short(1), out=tmp_path / "run", data=one, progress=False)
    with pytest.raises(ValueError, match="column 'length' where the new data have 'width'"):
        continue_from(tmp_path / "run", load_data(tmp_path / "two.csv"))
    continue_from(tmp_path / "run", load_data(tmp_path / "three.csv"), replay=0.5)


def test_fit_goes_on_from_a_run_and_says_so(data: Dataset, old: tuple[VAE, Path], tmp_path: Path) -> None:
    out = tmp_path / "new"
    some = data.train.take(slice(0, 200))
    options: dict[str, Any] = {"config": short(2), "seed": 1, "progress": False}
    by_fit = fit(VAE(old[0].config, seed=8), some, out=out, init_from=old[1], **options).vae
    assert RunFolder(out).config()["parent"] == parent_of(old[1])
    begun = VAE(old[0].config, seed=9)
    initialize_from(begun, old[1])
    assert bits(by_fit) == bits(fit(begun, some, **options).vae)
    with pytest.raises(RunError, match="began from 'old'"):
        fit(VAE(old[0].config), some, out=out, resume=True, init_from=by_fit, **options)
