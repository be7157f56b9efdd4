"""Documents of a known topic process, and the perplexity of predictions of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

type Array = np.ndarray[Any, Any]

NUM_TOPICS, WORDS_EACH, LENGTH_SHAPE = 10, 60.0, 4.0


@dataclass(frozen=True)
class Documents:
    """Documents of the process.

    Attributes:
        train: counts ``(document, word)``, sparse.
        seen: counts of the test documents, which a model receives.
        predicted: counts of second documents with the same shares of topics, which it predicts.
        shares: true probabilities of the words of each test document, ``(document, word)``.
    """

    train: Any
    seen: Any
    predicted: Any
    shares: Array


def documents(size: int, tests: int, words: int, seed: int) -> Documents:
    """Draw the documents."""
    random = np.random.default_rng(seed)
    topics = random.dirichlet(np.full(words, 0.05), NUM_TOPICS)

    def draw(shares: Array) -> Any:
        length = random.negative_binomial(LENGTH_SHAPE, LENGTH_SHAPE / (LENGTH_SHAPE + WORDS_EACH), len(shares))
        return sparse.csr_array(random.multinomial(length, shares / shares.sum(1, keepdims=True)).astype(np.float32))

    of_train, of_test = (random.dirichlet(np.full(NUM_TOPICS, 0.2), count) @ topics for count in (size, tests))
    return Documents(draw(of_train), draw(of_test), draw(of_test), of_test)


@dataclass(frozen=True)
class Perplexity:
    """exp of minus the mean log probability of a word, with its standard error over test documents."""

    value: float
    se: float

    @classmethod
    def of(cls, counts: Any, shares: Array) -> "Perplexity":
        """Of documents whose words were predicted with these probabilities, ``(document, word)``."""
        counts = counts.toarray()
        log_p = (counts * np.log(np.maximum(shares, 1e-300))).sum(1)
        count = counts.sum(1)
        mean = log_p.sum() / count.sum()
        error = np.sqrt(((log_p - mean * count) ** 2).sum()) / count.sum()  # of a ratio, by the delta method
        return cls(float(np.exp(-mean)), float(np.exp(-mean) * error))
