"""Classes of data by a fitted VAE: the guide's q(y | x), and the model's own p(y | x) by importance sampling."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro.applications.classification_result import Classification
from vae_pyro.core.files import write_atomically
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.evaluation.evaluation import evaluate
from vae_pyro.models.vae import VAE

type Array = np.ndarray[Any, Any]

_BLOCK = 2000
_SUMS_TO_ONE = 1e-6


@torch.no_grad()
def classify(
    vae: VAE,
    x: Split | Tensor | Array,
    *,
    num_draws: int = 100,
    seed: int = 0,
    mask: Tensor | None = None,
    labels: Any = None,
    log_prior: Any = None,
) -> Classification:
    """Classes of data: q(y | x) of the guide, and p(y | x) of the model.

    For each class c, z is drawn from q(z | x, y = c) and log p(x, y = c) estimated by importance sampling; the sum over
    classes is exact. Of a conditional VAE, which has no p(y), the estimate is that of log p(x | y = c) plus
    ``log_prior``.

    Args:
        vae: of structure ``m2`` or ``conditional``.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        num_draws: draws of z for each datum and class; 0 leaves the model's probabilities out, else at least 2.
            Without draws no density is evaluated, and data may lie outside the support of the likelihood.
        seed: of the draws.
        mask: boolean, shape of ``x``, true where observed.
        labels: true classes ``(datum,)``, for scores; the split's own if not given.
        log_prior: log p(y) of a conditional VAE, ``(class,)``, whose exponentials sum to 1; minus infinity leaves a
            class out. Uniform if not given.

    Returns:
        Probabilities for each datum and class.

    Raises:
        ValueError: a VAE without classes, ``log_prior`` where the model has its own, of another shape or of what are no
            probabilities, fewer than 2 draws, labels that are no classes, or data outside the support of the
            likelihood.
    """
    count = vae.num_classes
    if not count:
        raise ValueError(
            f"structure {vae.config.structure.name!r} has no classes; fit one with structure 'm2' or 'conditional'"
        )
    if num_draws < 0 or num_draws == 1:
        raise ValueError(f"num_draws is 0 or at least 2, got {num_draws}")
    given = as_split(x, mask)
    split = given.fixed(derive_seed(seed, 0)).replace(y=None)
    if num_draws:
        vae.check_data(split, y=torch.zeros(1, dtype=torch.int64))
    else:  # the encoder reads any numbers, such as the intensities of which binary images are draws
        vae.as_input(split.head)
    classifies = hasattr(vae.guide, "classify")
    if classifies and log_prior is not None:
        raise ValueError("log_prior is for a conditional VAE; structure 'm2' has a p(y) of its own")
    prior = np.full(count, -np.log(count)) if log_prior is None else np.asarray(log_prior, dtype=np.float64)
    if prior.shape != (count,):
        raise ValueError(f"log_prior must have shape ({count},), one number for each class, got {prior.shape}")
    # A NaN and plus infinity are refused by the comparison; the first test keeps the sum from a warning about them.
    if not ((prior < np.inf).all() and abs(np.logaddexp.reduce(prior)) < _SUMS_TO_ONE):
        raise ValueError(
            f"log_prior holds logarithms of probabilities that sum to 1, got {prior.tolist()}; subtract "
            "scipy.special.logsumexp(log_prior) from it"
        )
    log_joint = log_joint_se = log_guide = None
    if num_draws:
        log_joint, log_joint_se = _log_joint(vae, split, num_draws, seed)
        if not classifies:
            log_joint = log_joint + prior
    if classifies:
        log_guide = _of_guide(vae, split, seed)
    return Classification(
        guide=None if log_guide is None else np.exp(log_guide),
        log_joint=log_joint,
        log_joint_se=log_joint_se,
        labels=_checked(given.labels if labels is None else labels, len(split), count),
        ids=split.ids.cpu().numpy(),
        num_draws=num_draws,
        log_guide=log_guide,
    )


def write(made: Classification, path: str | Path) -> None:
    """Write classes and probabilities, whole or not at all.

    A ``.csv`` has a row for each datum: its id, the true class where it is known, the most probable class and the
    probabilities of the guide and of the model. An ``.npz`` has the arrays of `Classification` under their names, and
    ``model`` and ``model_se``.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".npz"):
        raise ValueError(f"classes are written as .csv or .npz, got {str(path)!r}")
    sources = {name: value for name in ("guide", "model") if (value := getattr(made, name)) is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        names = ("ids", "labels", "guide", "log_guide", "log_joint", "log_joint_se", "model", "model_se")
        arrays = {name: value for name in names if (value := getattr(made, name)) is not None}
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        write_atomically(path, content.getvalue())
        return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    head = ["id"] + ([] if made.labels is None else ["label"])
    for name, value in sources.items():
        head += [f"{name}_class", *(f"{name}_p{number}" for number in range(value.shape[1]))]
    rows.writerow(head)
    for number, row in enumerate(made.ids.tolist()):
        cells: list[Any] = [row] + ([] if made.labels is None else [int(made.labels[number])])
        for value in sources.values():
            cells += [int(value[number].argmax()), *(f"{p:.6g}" for p in value[number])]
        rows.writerow(cells)
    write_atomically(path, text.getvalue().encode())


def _log_joint(vae: VAE, split: Split, num_draws: int, seed: int) -> tuple[Array, Array]:
    """log p(x, y) of structure ``m2``, or log p(x | y), for each class, and its standard error."""
    found = []
    for number in range(vae.num_classes):
        label = torch.full((len(split),), number, dtype=torch.int64, device=split.device)
        # Draws of their own for every class, so that errors of the classes do not go together.
        found.append(evaluate(vae, split.replace(y=label), num_draws=num_draws, seed=derive_seed(seed, 1, number)))
    return np.stack([one.log_px for one in found], 1), np.stack([one.log_px_se for one in found], 1)


def _of_guide(vae: VAE, split: Split, seed: int) -> Array:
    """log q(y | x), shape ``(datum, class)``, float64."""
    guide: Any = vae.guide
    parts = []
    with isolated(derive_seed(seed, 2)):
        for rows in _rows(len(split)):
            x, beside = split.batch(rows, vae.dtype)
            beside = {name: value.to(vae.device) for name, value in beside.items()}
            parts.append(guide.classify(x.to(vae.device), **beside).logits.double().log_softmax(-1).cpu().numpy())
    return np.concatenate(parts)


def _rows(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK):
        yield slice(start, min(start + _BLOCK, count))


def _checked(labels: Any, size: int, num_classes: int) -> Array | None:
    """Labels as integers; ``None`` where there are none."""
    if labels is None:
        return None
    classes = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if classes.shape != (size,) or classes.dtype.kind not in "iu":
        raise ValueError(f"labels hold an integer for each of {size} data, got {classes.dtype} {classes.shape}")
    if size and (classes.min() < 0 or classes.max() >= num_classes):
        raise ValueError(f"labels must lie between 0 and {num_classes - 1}, got {classes.min()} to {classes.max()}")
    return classes.astype(np.int64)
