"""Models of documents: a VAE with each likelihood of counts, LDA, and two references."""

import argparse
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch

from analysis.density.elpd import elpd_of
from benchmarks.sparse.documents import NUM_TOPICS, Documents, Perplexity
from vae_pyro import VAE, FitConfig, Split, VAEConfig, fit
from vae_pyro.core.isolation import isolated
from vae_pyro.data.memory.sparse import SparseSplit
from vae_pyro.data.memory.sparse_rows import SparseRows

type Array = np.ndarray[Any, Any]

LIKELIHOODS = (
    "poisson",
    "negative_binomial",
    "zero_inflated_poisson",
    "zero_inflated_negative_binomial",
    "multinomial",
)
LATENT_DIM, _DRAWS_OF_SHARES = 10, 100


def predicted(vae: VAE, split: Split, seed: int) -> Array:
    """Posterior mean under q(z | x) of each word's share of the expected counts, ``(document, word)``."""
    total: Any = 0.0
    x, _ = split.batch(slice(None))
    with torch.no_grad(), isolated(seed):
        posterior = vae.encode(x)
        for _ in range(_DRAWS_OF_SHARES):
            rate = vae.expectation(posterior.sample())
            total = total + rate / rate.sum(1, keepdim=True)
    return np.asarray(total.double().numpy()) / _DRAWS_OF_SHARES


def by_vae(likelihood: str, data: Documents, given: argparse.Namespace) -> dict[str, Any]:
    """Fit and evaluate one likelihood."""
    split, test = SparseSplit(SparseRows.of(data.train)), SparseSplit(SparseRows.of(data.seen))
    config = VAEConfig(x_shape=split.x_shape, latent_dim=LATENT_DIM, likelihood=likelihood, encoder="mlp:hidden=[128]")
    began = perf_counter()
    result = fit(
        VAE(config, seed=given.seed),
        split,
        config=FitConfig(
            epochs=given.epochs,
            batch_size=100,
            optimizer="adam:lr=0.003",
            schedule="cosine",
            kl_warmup=given.epochs / 4,
            device="cpu",
        ),
        seed=given.seed,
    )
    seconds = perf_counter() - began
    found = elpd_of(result.vae, test, num_draws=given.num_draws, seed=given.seed)
    return {
        "model": likelihood,
        "perplexity": vars(Perplexity.of(data.predicted, predicted(result.vae, test, given.seed))),
        "log_px": found.summary(),
        "given_total": result.vae.model.likelihood.given_total,
        "seconds": seconds,
    }


def by_lda(data: Documents, given: argparse.Namespace) -> dict[str, Any]:
    """scikit-learn's latent Dirichlet allocation with the true number of topics and the true concentrations."""
    from sklearn.decomposition import LatentDirichletAllocation

    began = perf_counter()
    lda = LatentDirichletAllocation(
        NUM_TOPICS, doc_topic_prior=0.2, topic_word_prior=0.05, max_iter=given.epochs, random_state=given.seed
    ).fit(data.train)
    seconds = perf_counter() - began
    words = lda.components_ / lda.components_.sum(1, keepdims=True)
    return _row("LDA", data, lda.transform(data.seen) @ words, seconds)


def by_words(data: Documents, given: argparse.Namespace) -> dict[str, Any]:
    """The share of each word in all training documents, used for every document."""
    count = np.asarray(data.train.sum(0)).ravel() + 0.05
    return _row("one share for all", data, np.tile(count / count.sum(), (len(data.shares), 1)))


def by_truth(data: Documents, given: argparse.Namespace) -> dict[str, Any]:
    """The true shares of the test documents, which are unknown to all methods."""
    return _row("truth", data, data.shares / data.shares.sum(1, keepdims=True))


def _row(name: str, data: Documents, shares: Array, seconds: float | None = None) -> dict[str, Any]:
    return {
        "model": name,
        "perplexity": vars(Perplexity.of(data.predicted, shares)),
        "log_px": None,
        "seconds": seconds,
    }


MODELS: dict[str, Callable[[Documents, argparse.Namespace], dict[str, Any]]] = {
    "one share for all": by_words,
    "LDA": by_lda,
    **{name: partial(by_vae, name) for name in LIKELIHOODS},
    "truth": by_truth,
}
