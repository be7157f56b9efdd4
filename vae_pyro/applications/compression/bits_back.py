"""Bits-back coding: data coded with their latents, at an expected cost of minus the ELBO instead of -log p(x, z).

For each datum a latent is popped from the stack with q(z | x), which reads existing bits; x is pushed with p(x | z) and
z with p(z). The decoder pops z and x and pushes z with q(z | x), which restores those bits: the net cost of the datum
is log q(z | x) - log p(x | z) - log p(z), minus the ELBO on average. Data are coded one after another on one stack, so
that the latents of each are drawn from the bits of the previous ones, and those of the first from initial bits.

The bits that the previous data left are not random where the data are not distributed as the model or the latents not
as the prior, and a latent drawn from them would not follow q(z | x). So the bits are first combined with a fixed
pseudo-random sequence (exclusive or), which the decoder undoes.

References:
    Hinton & van Camp 1993, Keeping neural networks simple by minimizing the description length of the weights, COLT.
    doi:10.1145/168304.168306
    Townsend, Bird & Barber 2019, Practical lossless compression with latent variables using bits back coding (BB-ANS).
    arXiv:1901.04866
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_pyro.applications.compression.ans import MAX_SYMBOL_BITS, WORD_BITS, Stack, random_words
from vae_pyro.applications.compression.elements import Alphabet
from vae_pyro.applications.compression.grid import Grid
from vae_pyro.applications.compression.networks import Networks

type Array = np.ndarray[Any, Any]
type Rows = Callable[[slice], Array]

# A block pops the bits of all its latents before it pushes any. While it is at most an eighth of the previous data,
# these have left enough bits wherever a datum costs an eighth of its latents' bits, and only the first datum requires
# initial bits.
_SHARE = 8
_STEPS = 2  # a latent is popped as a cell and a bucket
_KEY = 0x5EED


@dataclass(frozen=True)
class Channel:
    """The models that encoder and decoder share.

    Attributes:
        networks: q(z | x) and p(x | z).
        grid: of the latents.
        alphabet: of the elements.
    """

    networks: Networks
    grid: Grid
    alphabet: Alphabet

    def pop_latents(self, stack: Stack, x: Array) -> Array:
        """Draw z ~ q(z | x) from the bits of the stack: bucket numbers ``(datum * latent,)``."""
        loc, scale = self.networks.posterior(x)
        cell = stack.pop(self.grid.cell_weights(loc, scale))
        return self.grid.join(cell, stack.pop(self.grid.bucket_weights(loc, scale, cell)))

    def push_latents(self, stack: Stack, x: Array, index: Array) -> None:
        """Restore the bits that `pop_latents` read."""
        loc, scale = self.networks.posterior(x)
        cell, bucket = self.grid.split(index)
        stack.push(bucket, self.grid.bucket_weights(loc, scale, cell))
        stack.push(cell, self.grid.cell_weights(loc, scale))

    def element_weights(self, index: Array) -> Array:
        """Weights of the elements of p(x | z), ``(datum * element, symbol)``."""
        z = self.grid.centres[index].reshape(-1, self.networks.latent_dim)
        return self.networks.element_weights(z, self.alphabet)

    def scramble(self, stack: Stack, block: slice) -> None:
        """Randomise the bits that the latents of a block are drawn from, or undo this."""
        if block.start:  # the initial bits are random already
            latents = (block.stop - block.start) * self.networks.latent_dim
            stack.scramble(-(-latents * self.grid.bits // 16) + 2, _KEY, block.start)


def blocks_of(num_data: int, largest: int) -> Iterator[slice]:
    """Data that are coded together: few at first, and never more than an eighth of the previous ones."""
    start = 0
    while start < num_data:
        stop = min(start + min(max(start // _SHARE, 1), largest), num_data)
        yield slice(start, stop)
        start = stop


def encode(channel: Channel, rows: Rows, num_data: int, seed: int) -> tuple[Array, int]:
    """Data as 32-bit words.

    Args:
        channel: the models, which the decoder shares.
        rows: returns integers ``(datum, *x_shape)`` of the alphabet for a slice.
        num_data: number of data.
        seed: seed of the initial bits.

    Returns:
        The words, and the number of initial words among them; those that were never read are left out.
    """
    networks, grid = channel.networks, channel.grid
    count = networks.block * networks.latent_dim * _STEPS * MAX_SYMBOL_BITS // WORD_BITS + 2
    stack = Stack(random_words(count, seed))
    for block in blocks_of(num_data, networks.block):
        x = rows(block)
        channel.scramble(stack, block)
        index = channel.pop_latents(stack, x)
        channel.alphabet.push(stack, x.reshape(-1), channel.element_weights(index))
        stack.push_uniform(index, grid.size)
    return stack.words()[stack.lowest :], count - stack.lowest


def decode(channel: Channel, words: Array, num_data: int) -> tuple[Array, Array]:
    """The data that `encode` was given, ``(datum, *x_shape)`` in int64, and the initial words."""
    networks, grid = channel.networks, channel.grid
    stack = Stack(words)
    x = np.empty((num_data, *networks.x_shape), np.int64)
    for block in reversed(list(blocks_of(num_data, networks.block))):
        size = block.stop - block.start
        index = stack.pop_uniform(size * networks.latent_dim, grid.size)
        values = channel.alphabet.pop(stack, channel.element_weights(index))
        x[block] = values.reshape(size, *networks.x_shape)
        channel.push_latents(stack, x[block], index)
        channel.scramble(stack, block)
    return x, stack.words()


def block_size(elements: int, symbols: int) -> int:
    """Data in one evaluation of the networks: at most 64, and fewer where their weights exceed 32 MiB."""
    return int(min(max((1 << 22) // (elements * symbols), 1), 64))
