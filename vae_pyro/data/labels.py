"""Labels that model and guide are given: of some data, as many of each class, repeated until they weigh enough."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vae_pyro.data.split import Split


def with_labels(split: Split, count: int | Literal["all"] | None, seed: int) -> Split:
    """A split whose labels the programs are given as ``y``.

    Args:
        split: with labels.
        count: give so many, see `balanced`; ``all`` gives all, ``None`` says of each that it is unknown.
        seed: of the choice.

    Raises:
        ValueError: see `balanced`.
    """
    labels = split.labels
    assert labels is not None
    if count == "all":
        return split.replace(y=labels.to(torch.int64))
    y = torch.full((len(split),), -1)
    if count is not None:
        rows = balanced(labels.numpy(), count, seed)
        y[rows] = labels[rows].to(torch.int64)
    return split.replace(y=y)


def balanced(labels: np.ndarray[Any, Any], count: int, seed: int) -> Tensor:
    """Rows of ``count`` data, as many of each class, rising.

    Args:
        labels: classes ``(datum,)``.
        count: a multiple of the number of classes.
        seed: of the choice.

    Raises:
        ValueError: no multiple, or a class that has too few data.
    """
    classes = np.unique(labels)
    each, rest = divmod(count, len(classes))
    if rest:
        raise ValueError(
            f"given_labels={count} is no multiple of the {len(classes)} classes, of which each gets as many"
        )
    random, rows = np.random.default_rng(seed), []
    for label in classes:
        members = np.flatnonzero(labels == label)
        if len(members) < each:
            raise ValueError(
                f"given_labels={count} requires {each} training data of class {label}, which has {len(members)}"
            )
        rows.append(random.permutation(members)[:each])
    return torch.from_numpy(np.sort(np.concatenate(rows)))


def repeat_labelled(split: Split, share: float) -> Split:
    """The same data, with those whose class is given repeated until they are a share of all.

    Few labelled data among many would be seen once in an epoch each, and most batches would hold none. Repeated, they
    are in every batch in proportion, in a random order like the others, and random observations are drawn anew for
    every copy. Each is repeated equally often, or once more than another.

    Args:
        split: in memory, with ``y``, -1 where a class is unknown.
        share: of labelled data, below 1; where they are that many already, nothing changes.

    Raises:
        ValueError: ``share`` out of range, streamed data, or a split in which no class is given.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of labelled data lies between 0 and 1, got {share:g}")
    if split.streamed:
        raise ValueError("labelled data that are repeated (labelled_share) are held in memory; pass stream=False")
    if split.y is None or not bool((split.y >= 0).any()):
        raise ValueError("no datum of the split has a class that is given; load it with given_labels, or pass y")
    labelled, unlabelled = ((split.y >= 0).nonzero().flatten(), (split.y < 0).nonzero().flatten())
    target = round(share / (1 - share) * len(unlabelled))
    copies = labelled[torch.arange(max(target - len(labelled), 0), device=labelled.device) % len(labelled)]
    return split.take(torch.cat([torch.arange(len(split), device=labelled.device), copies]).to(split.ids.device))
