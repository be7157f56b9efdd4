"""Draws of a fitted VAE beside new data, so that a fit on both keeps what the old model knew.

Fitted on new data alone, a network forgets what it knew. Of a generative model the old data need not be kept: its draws
stand in for them, and the fit goes on with a mixture of new data and draws (generative replay). What is kept is what
the old model knew, no more: where its prior predictive is off, the new model learns that as well.

References:
    Robins 1995, Catastrophic forgetting, rehearsal and pseudorehearsal, Connection Science 7.
    Shin, Lee, Kim & Kim 2017, Continual learning with deep generative replay, NeurIPS, sec. 3. arXiv:1705.08690
"""

from typing import Any

import torch
from torch import Tensor

from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.split import Split
from vae_pyro.models.vae import VAE

# Independent random streams of one seed.
TRAIN_STREAM, VALIDATION_STREAM, _DRAW_STREAM, _PATTERN_STREAM, _CLASS_STREAM = range(5)
_BLOCK = 2048


def rehearsal(
    vae: VAE, new: Split, *, share: float = 0.5, num_draws: int | None = None, y: Tensor | None = None, seed: int
) -> Split:
    """New data joined with draws from the prior predictive of a fitted VAE, stored and observed as the new data are.

    Where pixels are binarised anew at every step, what is kept of a draw is E[x | z], and each step draws x from it:
    given z these are the model's own draws, a fresh one each time. Bytes hold levels of it, up or down at random so
    that its mean stays E[x | z]; where the only levels are 0 and 1, that is a draw of x. Everywhere else x itself is
    drawn once: expectations would lack the noise of p(x | z), and a likelihood with a scale would learn that there is
    none. Bytes stay bytes where draws are integers; where they are not, the new data become floating-point numbers with
    them. Draws have as many unobserved elements as the new data, in the patterns of these, so that the guide rehearses
    them too.

    Args:
        vae: the old model. It is not changed.
        new: data in memory; sparse ones become dense.
        share: of draws in the whole, above 0 and below 1: of ``n`` data, ``n share / (1 - share)``.
        num_draws: about how many draws to make. Where the share asks for fewer, all new data are repeated as often as
            it takes, so that few new data still come with many draws; an epoch is longer by that.
        y: classes of the old data, ``(any,)``, from which those of draws are chosen; a conditional model requires
            them. One that infers classes draws them itself, and they are kept as known.
        seed: of the draws.

    Returns:
        New data first, then draws, whose ``ids`` are -1, -2 and so on, and whose labels are -1.

    Raises:
        ValueError: no share, no data, streamed data, data of another shape, a conditional model without ``y``, or draws
            that cannot be observed as the new data are.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is the share of draws among all data, above 0 and below 1, got {share:g}")
    if new.streamed:
        raise ValueError("draws cannot be joined with streamed data; load them with stream=False, or do without replay")
    if len(new) == 0 or new.x_shape != vae.config.x_shape:
        raise ValueError(f"data of shape (datum, *{vae.config.x_shape}) expected, got {(len(new), *new.x_shape)}")
    ratio = share / (1 - share)
    repeats = 1 if num_draws is None else max(round(num_draws / (ratio * len(new))), 1)
    count = max(round(repeats * len(new) * ratio), 1)
    values, classes = _draws(vae, new, count, y, seed)
    rows = torch.arange(len(new), device=new.device).repeat(repeats)
    old = new.take(rows)
    stored = old.stored(slice(None))
    if values.dtype.is_floating_point and not stored.dtype.is_floating_point:
        top = 1.0 if new.top is None else new.top
        old, stored, values = old.replace(top=None), stored.to(values.dtype) / top, values / top
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
    return old.replace(values=torch.cat([stored, values]), **beside)


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
    integers = not new.dtype.is_floating_point
    top = 1.0 if new.top is None else new.top
    if new.draw == "dequantize":  # the level in whose interval a draw lies; the noise in it is drawn anew
        level = (x * (1.0 if new.top is None else new.top + 1)).floor()
        highest = new.top if new.top is not None else float(new.stored(slice(None)).max())
        return level.clamp(0, highest).to(new.dtype)
    if expected and integers:
        # The nearest level would be off on average by as much as half a level, and a thresholded mean where there are
        # but two; floor(level + uniform noise) has the level as its mean.
        noise = torch.rand(x.shape, dtype=torch.float64).to(x.device)
        return (x.double() * top + noise).floor().clamp(max=top).to(new.dtype)
    if expected:
        return x * top
    if new.draw == "binarize" and not bool(((x == 0) | (x == 1)).all()):
        raise ValueError(
            "the new data are binarised anew at every step, and the old model does not draw 0 and 1; load them with "
            "binarize='static', or leave replay out"
        )
    levels = x * top
    if integers and bool((levels == levels.round()).all()):
        kind = new.dtype
        fits = kind == torch.bool or (levels.min() >= torch.iinfo(kind).min and levels.max() <= torch.iinfo(kind).max)
        return levels.to(kind if fits else torch.int64)
    return levels
