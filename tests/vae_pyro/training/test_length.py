"""The length of a fit that the data decide: its bound, paired comparisons of epochs, and the sentence at its end."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.truths import example
from tests.vae_pyro.training.fits import bits
from vae_pyro import VAE, FitConfig, VAEConfig, VAETransformer, fit
from vae_pyro.training import length as lengths
from vae_pyro.training.checkpoints import State
from vae_pyro.training.early_stopping import EarlyStopping
from vae_pyro.training.length import Length, automatic, ending, paired, slope


@pytest.mark.parametrize(
    ("steps", "num_validation", "warmup", "epochs", "patience"),
    [
        (4, 46, 0, 2500, 375),
        (4, 5, 0, 2500, 375),
        (4, 4, 0, 750, None),
        (4, 0, 0, 750, None),
        (100, 500, 0, 100, 15),
        (422, 6000, 0, 50, 5),
        (422, 6000, 9.5, 60, 5),
        (7032, 100_000, 0, 8, 5),
        (50_000, 100_000, 0, 5, 5),
    ],
)
def test_the_numbers_of_data_give_the_bound(
    steps: int, num_validation: int, warmup: float, epochs: int, patience: int | None
) -> None:
    found = automatic(steps, num_validation, warmup)
    assert found == Length(epochs, steps, patience, automatic=True)
    assert f"at most {epochs:,} epochs" in str(found) or patience is None
    assert found.judged == (patience is not None)
    ends = automatic(steps, num_validation, warmup, open_ended=False)
    assert (ends.epochs, ends.patience) == ({4: 750, 100: 50}.get(steps, epochs), patience)


def test_given_epochs_and_patience_mean_what_they_say() -> None:
    assert FitConfig(epochs=7).length(300, 100) == Length(7, 3, None, automatic=False)
    assert FitConfig(epochs=7, patience=2).length(300, 100) == Length(7, 3, 2, automatic=False)
    assert FitConfig(patience=2).length(300, 100) == Length(3334, 3, 2, automatic=False)
    assert FitConfig().planned(300).epochs == 1000
    assert FitConfig(epochs=7).planned(300).epochs == 7
    assert FitConfig(kl_warmup=20, schedule="cosine:warmup=30").length(10**6).epochs == 37
    with pytest.raises(ValueError, match="epochs"):
        FitConfig(epochs=0)


def test_a_difference_is_paired() -> None:
    random = np.random.default_rng(0)
    data, noise = 100 * random.normal(size=400), random.normal(size=400)
    mean, error = paired(data + 0.2 + noise, data)
    assert mean == pytest.approx(0.2 + noise.mean())
    assert error == pytest.approx(noise.std(ddof=1) / 20)
    rate, spread = slope(3 * np.arange(40) + random.normal(size=40))
    assert abs(rate - 3) < 4 * spread
    assert spread == pytest.approx(1 / (40**3 / 12) ** 0.5, rel=0.5)
    assert slope([1.0, 2.0, 3.0]) == (0.0, float("inf"))


def test_an_epoch_is_better_only_beyond_the_paired_error_and_the_best_mean_is_kept() -> None:
    vae = VAE(VAEConfig(x_shape=(2,), latent_dim=1, likelihood="gaussian"))
    stopping = EarlyStopping(vae, FitConfig(), Length(9, 1, 2, automatic=True))
    state, weight = State(), next(vae.parameters())
    random = np.random.default_rng(1)
    base, noise = random.normal(size=100), random.normal(size=100)
    noise -= noise.mean()
    # A gain within the standard error of 0.1, one beyond it, and two that are none.
    for epoch, (gain, stale) in enumerate([(0.0, 0), (0.05, 1), (0.15, 0), (0.1, 1), (0.05, 2)]):
        weight.data.fill_(epoch)
        values = base + gain + (noise if epoch else 0.0)
        stopping.judge(state, float(values.mean()), values)
        state.epoch += 1
        assert (state.stale, stopping.exhausted(state)) == (stale, stale == 2), epoch
    assert state.best_epoch == 3
    assert stopping.best is not None
    assert float(next(iter(stopping.best.values())).max()) == 2.0


def test_of_bounds_that_are_alike_the_best_elbo_is_kept() -> None:
    vae = VAE(VAEConfig(x_shape=(2,), latent_dim=1, likelihood="gaussian"))
    stopping = EarlyStopping(vae, FitConfig(), Length(9, 1, 9, automatic=True), weighted=True)
    state, random = State(), np.random.default_rng(1)
    base, noise = random.normal(size=100), random.normal(size=100)
    noise -= noise.mean()
    # Standard error 0.1: bounds alike with a better ELBO, one that is worse, and one that is better.
    for epoch, (bound, elbo, best) in enumerate([(0.0, -3.0, 1), (-0.05, -2.0, 2), (-0.3, -1.0, 2), (0.2, -4.0, 4)]):
        stopping.judge(state, elbo, base + bound + (noise if epoch else 0.0))
        state.epoch += 1
        assert state.best_epoch == best


@pytest.mark.parametrize(
    ("rate", "fallen", "stopped", "words"),
    [
        (0.0, (0.0, 0.1), True, "converged; weights of epoch 9"),
        (0.5, (0.5, 0.1), True, "overfitting since epoch 9; weights of epoch 9"),
        (-0.5, (0.5, 9.0), True, "overfitting since epoch 9; weights of epoch 9"),
        (
            0.5,
            (-0.5, 0.1),
            False,
            "stopped at the bound of 40 epochs (80 steps), validation ELBO still rising by 0.5 na",
        ),
        (0.0, None, False, "stopped at the bound of 40 epochs (80 steps); without enough validation data"),
    ],
)
def test_a_sentence_says_how_it_ended(rate: float, fallen: Any, stopped: bool, words: str) -> None:
    history = [{"validation_elbo": rate * epoch} for epoch in range(40)]
    length = Length(40, 2, None if fallen is None else 12, automatic=True)
    said = ending(length, history, key="validation_elbo", best_epoch=9, fallen=fallen, stopped=stopped)
    assert said.startswith(words)
    planned = ending(Length(40, 2, None, automatic=False), history, key="validation_elbo", best_epoch=9, fallen=None,
                     stopped=False)  # fmt: skip
    assert ("still rising by 0.5 nats" in planned) == (rate > 0)


def test_few_data_overfit_and_a_fit_that_was_stopped_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lengths, "_STEPS_STOPPED", 100)
    monkeypatch.setattr(lengths, "_PATIENCE_STEPS", 20)
    truth = example()
    x, validation = truth.sample(12, seed=0).float(), truth.sample(100, seed=1).float()
    config = FitConfig(
        optimizer="adam:lr=0.06", objective="iwae:num_particles=3", compile=False, device="cpu", checkpoint_seconds=0
    )

    def fitted(name: str, **options: Any) -> Any:
        vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[32]"), seed=3)
        return fit(vae, x, validation=validation, config=config, out=tmp_path / name, progress=False, **options)

    whole = fitted("whole")
    assert whole.ending == f"overfitting since epoch {whole.best_epoch}; weights of epoch {whole.best_epoch}"
    assert whole.ending in str(whole)
    assert whole.restored_best
    assert 20 < whole.epochs < 100
    bounds = [row["validation_bound"] for row in whole.history]
    best, highest = whole.history[whole.best_epoch - 1], whole.history[int(np.argmax(bounds))]
    assert best["validation_elbo"] >= highest["validation_elbo"]
    assert best["validation_bound"] > highest["validation_bound"] - 0.5
    assert all(row["validation_bound"] > row["validation_elbo"] for row in whole.history)

    class StoppedError(Exception):
        pass

    def kill(row: dict[str, float]) -> None:
        if row["epoch"] == 15:
            raise StoppedError

    with pytest.raises(StoppedError):
        fitted("parts", on_epoch=kill)
    again = fitted("parts", resume=True)
    assert (again.ending, again.epochs, bits(again.vae)) == (whole.ending, whole.epochs, bits(whole.vae))


def test_estimators_hold_out_a_tenth_where_that_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "_EPOCHS", 3)
    monkeypatch.setattr(lengths, "_STEPS_STOPPED", 3)
    monkeypatch.setattr(lengths, "_STEPS", 3)
    x = example().sample(1000, seed=0).numpy()
    made = VAETransformer(1, hidden=(4,), random_state=0).fit(x)
    assert len(made.history_) == 3
    assert "validation_elbo" in made.history_[0]
    assert made.ending_.startswith(("converged", "stopped at the bound", "overfitting"))
    few = VAETransformer(1, hidden=(4,), random_state=0).fit(x[:990])
    assert len(few.history_) == 3
    assert "validation_elbo" not in few.history_[0]
    assert "not judged" in few.ending_
    given = VAETransformer(1, hidden=(4,), epochs=2, random_state=0).fit(x)
    assert len(given.history_) == 2
    assert "validation_elbo" not in given.history_[0]
    hole = np.where((np.arange(1000) == np.arange(1000)[made_order(made)[0]])[:, None] & (np.arange(5) == 2), x, np.nan)
    hole[:, [0, 1, 3, 4]] = x[:, [0, 1, 3, 4]]
    lone = VAETransformer(1, hidden=(4,), random_state=0).fit(hole)  # the only value of a column is never held out
    assert "validation_elbo" not in lone.history_[0]


def made_order(made: VAETransformer) -> list[int]:
    """Rows that the estimator holds out first."""
    marked = torch.arange(1000, dtype=torch.float64)[:, None].expand(1000, 5).numpy()
    _, held_out = made._dealt(marked)
    assert held_out is not None
    return [int(row) for row in held_out[:, 0]]
