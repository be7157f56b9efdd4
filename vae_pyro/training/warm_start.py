"""Going on from a fitted run: its weights in a new VAE, and its own draws beside new data, so that it keeps the old.

Fitted on new data alone, a network forgets what it knew. Of a generative model the old data need not be kept: its draws
stand in for them, and the fit goes on with a mixture of new data and draws (generative replay). What is kept is what
the old model knew, no more: where its prior predictive is off, the new model learns that as well.

References:
    Robins 1995, Catastrophic forgetting, rehearsal and pseudorehearsal, Connection Science 7.
    Shin, Lee, Kim & Kim 2017, Continual learning with deep generative replay, NeurIPS, sec. 3. arXiv:1705.08690
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from vae_pyro.core.files import RunError
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import Dataset
from vae_pyro.data.split import Split, fingerprint
from vae_pyro.models.vae import VAE, VAEConfig
from vae_pyro.runs.folder import RunFolder, set_weights, weights

type Fitted = VAE | RunFolder | str | Path

_BLOCK = 2048
_TRAIN_STREAM, _VALIDATION_STREAM, _DRAW_STREAM, _PATTERN_STREAM, _CLASS_STREAM = range(5)
# How weights would have started, which does not matter to one that starts from others.
_FREE = ("init",)


@dataclass(frozen=True)
class Continuation:
    """What a fit that goes on from another one starts with.

    Attributes:
        vae: with the weights of the old one.
        data: the new data; training and validation data joined with draws of the old model where replay was asked for.
        parent: what the fit goes on from, for ``config.json``, see `parent_of`.
    """

    vae: VAE
    data: Dataset
    parent: dict[str, Any]


def parent_of(fitted: Fitted) -> dict[str, Any]:
    """What a fit goes on from: ``run``, the name of the folder, and ``weights``, a SHA-256.

    Of a run it is the one in the header of its weights; of a VAE in memory, whose ``run`` is ``None``, that of its
    tensors.

    Raises:
        RunError: the run has no finished weights.
    """
    if isinstance(fitted, VAE):
        tensors = {name: tensor.cpu().contiguous() for name, tensor in sorted(weights(fitted).items())}
        return {"run": None, "weights": hashlib.sha256(save(tensors)).hexdigest()}
    folder = _folder(fitted)
    digest = folder.weights_digest()
    if digest is None:
        raise RunError(f"the run in {str(folder.path)!r} has no finished weights to go on from; finish it (--resume)")
    return {"run": folder.path.resolve().name, "weights": digest}


def require_parent(stored: Mapping[str, Any] | None, now: Mapping[str, Any] | None, path: Path) -> None:
    """Refuse to resume a run that went on from something else than this call says.

    The name of a folder may have changed; the weights may not.

    Args:
        stored: ``parent`` in the run's ``config.json``, if any.
        now: `parent_of` what this call goes on from, if it says so.
        path: of the run.

    Raises:
        RunError: the weights differ, or only one of the two goes on from others.
    """
    if (stored or {}).get("weights") == (now or {}).get("weights"):
        return
    was, says = (_words(parent) for parent in (stored, now))
    raise RunError(f"the run in {str(path)!r} began from {was}, this call says {says}; name the run that it began from")


def _words(parent: Mapping[str, Any] | None) -> str:
    if parent is None:
        return "new weights"
    return f"{parent['run'] or 'a VAE in memory'!r} with weights {parent['weights'][:12]}"


def base_settings(run: RunFolder | str | Path) -> dict[str, Any]:
    """Settings that a fit which goes on from a run starts with, for `assemble`: all of the run's.

    Model, fit and seed, and how the data are observed; not which data these are, nor whether they are streamed.

    Raises:
        RunError: see `RunFolder.config`.
    """
    config = _folder(run).config()
    data = {key: value for key, value in config["data"].items() if key not in ("source", "stream", "array_shape")}
    return {"model": config["model"], "fit": config["fit"], "data": data, "seed": config["seed"]}


def initialize_from(vae: VAE, fitted: Fitted) -> dict[str, Any]:
    """Copy the weights of a fitted VAE into another one of the same configuration, in place.

    All of them are copied, buffers as well: statistics by which inputs are standardised, scales and pseudo-inputs stay
    those of the first data, and `VAE.initialize` leaves them alone. An optimizer knows nothing of the earlier fit: its
    moments and its schedule start anew.

    Args:
        vae: changed; it keeps its device and floating-point type.
        fitted: a VAE, a run folder, or its path.

    Returns:
        `parent_of` the fitted one.

    Raises:
        RunError: the run has not finished, or is damaged.
        ValueError: the configurations differ (the message names what), or the other VAE was never fitted.
    """
    parent = parent_of(fitted)
    other = fitted if isinstance(fitted, VAE) else _folder(fitted).load_model()
    require_same_model(vae.config, other.config)
    if not other.initialized:
        raise ValueError("the VAE to go on from was never fitted; fit it first, or leave init_from out")
    set_weights(vae, weights(other), "what this fit goes on from")
    return parent


def require_same_model(new: VAEConfig, old: VAEConfig) -> None:
    """Refuse a configuration whose weights would be others.

    Raises:
        ValueError: the message names the first field that differs, with both values.
    """
    mine, others = new.model_dump(mode="json"), old.model_dump(mode="json")
    odd = [key for key in mine if key not in _FREE and mine[key] != others.get(key)]
    if odd:
        way = (
            "bring the new data to the old shape"
            if odd == ["x_shape"]
            else "leave it out, so that the model is the run's, or fit a new one without --init-from (init_from)"
        )
        raise ValueError(
            f"a fit that goes on from another one has its model: {odd[0]} is {mine[odd[0]]!r} here and "
            f"{others.get(odd[0])!r} there{f', and {len(odd) - 1} more differ' if len(odd) > 1 else ''}; {way}"
        )


def continue_from(
    fitted: Fitted,
    data: Dataset,
    *,
    model: VAEConfig | None = None,
    replay: float = 0.0,
    seed: int = 0,
) -> Continuation:
    """Data and VAE for a fit that goes on from a fitted one.

    Args:
        fitted: a VAE, a run folder, or its path.
        data: the new data.
        model: what the new VAE is to be; ``None`` takes the old one's. It has to be the same, see `initialize_from`.
        replay: share of the old model's draws in what is fitted and validated, see `rehearsal`; 0 replays nothing.
        seed: of the draws, and of nothing else.

    Returns:
        VAE, data and parent, for `vae_pyro.fit`. Sizes, test data and fingerprint in ``data.facts`` are those of the
        new data; ``replay`` tells share, numbers of draws, and the fingerprint of what is fitted.

    Raises:
        RunError: the run has not finished, or is damaged.
        ValueError: another model, columns of other names, or replay that is no share, of streamed data, or of data that
            are observed in another way than the old ones were.
    """
    if not 0 <= replay < 1:
        raise ValueError(f"replay is a share of the fitted data, from 0 to below 1, got {replay:g}")
    old = fitted if isinstance(fitted, VAE) else _folder(fitted).load_model()
    facts = {} if isinstance(fitted, VAE) else _folder(fitted).config()["facts"]
    vae = VAE(old.config if model is None else model, seed=seed).to(dtype=old.dtype)
    parent = parent_of(fitted)
    initialize_from(vae, old)
    if data.x_shape != vae.config.x_shape:
        raise ValueError(
            f"the data have the shape {data.x_shape}, the model {vae.config.x_shape}; bring them to its shape"
        )
    columns, names = facts.get("columns"), data.facts.get("columns")
    if columns and names and columns != names:
        odd = next((pair for pair in zip(columns, names, strict=False) if pair[0] != pair[1]), (columns, names))
        raise ValueError(f"the run was fitted on the column {odd[0]!r} where the new data have {odd[1]!r}")
    if replay == 0:
        return Continuation(vae, data, parent)
    if facts.get("space", data.facts["space"]) != data.facts["space"]:
        raise ValueError(
            f"the run's data were {facts['space']!r} and the new ones are {data.facts['space']!r}: draws of its model "
            "cannot join them; prepare both alike (binarize, scale, dequantize), or leave replay out"
        )
    train = rehearsal(old, data.train, share=replay, seed=derive_seed(seed, _TRAIN_STREAM))
    validation = data.validation
    if len(validation):
        validation = rehearsal(old, validation, share=replay, seed=derive_seed(seed, _VALIDATION_STREAM))
    told = {
        "share": replay,
        "draws": {"train": len(train) - len(data.train), "validation": len(validation) - len(data.validation)},
        "fingerprint": fingerprint(train, validation),
    }
    return Continuation(
        vae, replace(data, train=train, validation=validation, facts={**data.facts, "replay": told}), parent
    )


def _folder(run: RunFolder | str | Path) -> RunFolder:
    return run if isinstance(run, RunFolder) else RunFolder(run)


def rehearsal(
    vae: VAE, new: Split, *, share: float = 0.5, num_draws: int | None = None, y: Tensor | None = None, seed: int
) -> Split:
    """New data joined with draws from the prior predictive of a fitted VAE, stored and observed as the new data are.

    Where pixels are binarised anew at every step, what is kept of a draw is E[x | z], and each step draws x from it:
    given z these are the model's own draws, a fresh one each time. Bytes hold levels of it, up or down at random so
    that its mean stays E[x | z]; where the only levels are 0 and 1, that is a draw of x. Everywhere else x itself is
    drawn once: expectations would lack the noise of p(x | z), and a likelihood with a scale would learn that there is
    none. Bytes stay bytes
    where draws are integers; where they are not, the new data become floating-point numbers with them. Draws have as
    many unobserved elements as the new data, in the patterns of these, so that the guide rehearses them too.

    Args:
        vae: the old model. It is not changed.
        new: data in memory.
        share: of draws in the whole, above 0 and below 1: of ``n`` data, ``n share / (1 - share)``.
        num_draws: about how many draws to make. Where the share asks for fewer, all new data are repeated as often as
            it takes, so that few new data still come with many draws; an epoch is longer by that.
        y: classes of the old data, ``(any,)``, from which those of draws are chosen; a conditional model wants them.
            One that infers classes draws them itself, and they are kept as known.
        seed: of the draws.

    Returns:
        New data first, then draws, whose ``ids`` are -1, -2 and so on, and whose labels are -1.

    Raises:
        ValueError: no share, no data, streamed data, data of another shape, a conditional model without ``y``, or draws
            that cannot be observed as the new data are.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is the share of draws among all data, above 0 and below 1, got {share:g}")
    if not new.resident:
        raise ValueError("draws cannot be joined with streamed data; load them with stream=False, or do without replay")
    if len(new) == 0 or new.x_shape != vae.config.x_shape:
        raise ValueError(f"data of shape (datum, *{vae.config.x_shape}) wanted, got {(len(new), *new.x_shape)}")
    ratio = share / (1 - share)
    repeats = 1 if num_draws is None else max(round(num_draws / (ratio * len(new))), 1)
    count = max(round(repeats * len(new) * ratio), 1)
    values, classes = _draws(vae, new, count, y, seed)
    rows = torch.arange(len(new), device=new.device).repeat(repeats)
    old = new.take(rows)
    stored = old.values
    if values.dtype.is_floating_point and not stored.dtype.is_floating_point:
        top = 1.0 if new.top is None else new.top
        old, stored, values = replace(old, top=None), stored.to(values.dtype) / top, values / top
    if stored.dtype.is_floating_point:
        values = values.to(stored.dtype)
    beside: dict[str, Any] = {"ids": torch.cat([old.ids, -1 - torch.arange(count).to(old.ids)])}
    if old.labels is not None:
        labels = old.labels.to(torch.int64)
        beside["labels"] = torch.cat([labels, labels.new_full((count,), -1)])
    if old.y is not None:
        beside["y"] = torch.cat([old.y, old.y.new_full((count,), -1) if classes is None else classes.to(old.y)])
    if old.mask is not None:
        generator = torch.Generator().manual_seed(derive_seed(seed, _PATTERN_STREAM))
        pattern = torch.randint(len(old), (count,), generator=generator).to(old.device)
        beside["mask"] = torch.cat([old.mask, old.mask[pattern]])
    # Of the wider integer type, where draws exceed that of the data.
    return replace(old, values=torch.cat([stored, values]), **beside)


@torch.no_grad()
def _draws(vae: VAE, new: Split, count: int, y: Tensor | None, seed: int) -> tuple[Tensor, Tensor | None]:
    """Draws in the units of the stored values, integers where that says all; and their classes."""
    if y is None:
        try:
            vae.model.require(None)
        except ValueError as error:
            raise ValueError(
                f"{error}; it does not say how common each is, so pass rehearsal(y=) those of old data"
            ) from None
    expected = new.draw == "binarize" and vae.model.likelihood.binary
    generator = torch.Generator().manual_seed(derive_seed(seed, _CLASS_STREAM))
    values, classes = [], []
    for block, start in enumerate(range(0, count, _BLOCK)):
        size = min(_BLOCK, count - start)
        given = None if y is None else torch.as_tensor(y)[torch.randint(len(y), (size,), generator=generator)]
        with isolated(derive_seed(seed, _DRAW_STREAM, block)):
            z, own = vae.model.draw(size, None if given is None else given.to(vae.device))
            x = vae.expectation(z, y=own) if expected else vae.decode(z, y=own).sample()
            values.append(_stored(x.to(new.device), new, expected))
        if own is not None:
            classes.append(own.to(new.device))
    return torch.cat(values), torch.cat(classes) if classes else None


def _stored(x: Tensor, new: Split, expected: bool) -> Tensor:
    """Draws as the new data are stored: of an integer type where they are integers, else floating.

    Levels of expectations are chosen by torch's global generator.
    """
    integers = not new.values.dtype.is_floating_point
    top = 1.0 if new.top is None else new.top
    if new.draw == "dequantize":  # the level in whose interval a draw lies; the noise in it is drawn anew
        level = (x * (1.0 if new.top is None else new.top + 1)).floor()
        return level.clamp(0, new.top if new.top is not None else float(new.values.max())).to(new.values.dtype)
    if expected and integers:
        # The nearest level would be off on average by as much as half a level, and a thresholded mean where there are
        # but two; floor(level + uniform noise) has the level as its mean.
        noise = torch.rand(x.shape, dtype=torch.float64).to(x.device)
        return (x.double() * top + noise).floor().clamp(max=top).to(new.values.dtype)
    if expected:
        return x * top
    if new.draw == "binarize" and not bool(((x == 0) | (x == 1)).all()):
        raise ValueError(
            "the new data are binarised anew at every step, and the old model does not draw 0 and 1; load them with "
            "binarize='static', or leave replay out"
        )
    levels = x * top
    if integers and bool((levels == levels.round()).all()):
        kind = new.values.dtype
        fits = kind == torch.bool or (levels.min() >= torch.iinfo(kind).min and levels.max() <= torch.iinfo(kind).max)
        return levels.to(kind if fits else torch.int64)
    return levels
