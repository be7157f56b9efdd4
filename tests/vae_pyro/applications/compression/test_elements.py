"""Alphabets of data and the weights of their symbols."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch

from vae_pyro.applications.compression.ans import Stack, random_words
from vae_pyro.applications.compression.elements import Alphabet, alphabet_of


def test_weights_are_probabilities_and_an_escape_takes_the_rest() -> None:
    rate = torch.tensor([0.5, 3.0, 20.0], dtype=torch.float64)
    poisson = dist.Poisson(rate)
    mass = poisson.log_prob(torch.arange(6.0, dtype=torch.float64)[:, None]).exp().T.numpy()
    with_escape = Alphabet(0, 7, escape=True).weights(poisson)
    np.testing.assert_allclose(with_escape[:, :6] / with_escape.sum(1, keepdims=True), mass, atol=1e-6)
    np.testing.assert_allclose(with_escape[:, 6] / with_escape.sum(1), 1 - mass.sum(1), atol=1e-5)
    bounded = Alphabet(0, 6).weights(poisson)
    np.testing.assert_allclose(bounded / bounded.sum(1, keepdims=True), mass / mass.sum(1, keepdims=True), atol=1e-5)


def test_alphabets_are_those_of_the_support() -> None:
    assert alphabet_of(dist.Bernoulli(torch.tensor(0.5)), 1) == Alphabet(0, 2)
    assert alphabet_of(dist.Categorical(torch.ones(7)), 3) == Alphabet(0, 7)
    assert alphabet_of(dist.Poisson(torch.tensor(1.0)), 30) == Alphabet(0, 31)
    assert alphabet_of(dist.Poisson(torch.tensor(1.0)), 0) == Alphabet(0, 2)
    assert alphabet_of(dist.Poisson(torch.tensor(1.0)), 4096) == Alphabet(0, 4097, escape=True)
    levels = dist.Categorical(torch.ones(3))
    assert alphabet_of(dist.MixtureSameFamily(levels, dist.Poisson(torch.ones(3))), 30) == Alphabet(0, 31)
    with pytest.raises(ValueError, match="requires integers, and a MixtureSameFamily"):
        alphabet_of(dist.MixtureSameFamily(levels, dist.Normal(torch.zeros(3), 1.0)), 3)
    with pytest.raises(ValueError, match="requires integers, and a Normal"):
        alphabet_of(dist.Normal(0.0, 1.0), 3)


def test_a_probability_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"p\(x \| z\) has probabilities that are not finite"):
        Alphabet(0, 2).weights(dist.Bernoulli(logits=torch.tensor([torch.nan]), validate_args=False))


def test_values_beyond_the_alphabet_come_back() -> None:
    alphabet = Alphabet(0, 4, escape=True)
    x = np.array([0, 3, 2, 2**50, 4, 1, 3])
    weights = np.ones((7, 4))
    stack = Stack(random_words(3, 0))
    before = stack.words()
    alphabet.push(stack, x, weights)
    np.testing.assert_array_equal(alphabet.pop(stack, weights), x)
    np.testing.assert_array_equal(stack.words(), before)
