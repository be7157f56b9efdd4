"""Log densities of Poisson and negative binomial counts by elementary functions, to float32 rounding at every size.

The textbook form is a small difference of log-gammas as large as the parameters, of which float32 loses whole nats and
float64 costs ten times as much. Here all large terms are cancelled by algebra first: with
``S(y) = lgamma(y) - (y - 1/2) log y + y - log(2 pi) / 2``, the remainder of Stirling's formula,

``log Poisson(x; m) = -D(x, m) - log(2 pi x) / 2 - S(x)`` and

``log NB(x; m, r) = -D(x, m, r) + log(r / (2 pi x (x + r))) / 2 + S(x + r) - S(r) - S(x)``

for positive x, where ``D >= 0`` is half of the deviance,
``D = x log1p(r (x - m) / (m (x + r))) - r log1p((x - m) / (m + r))``. At zero they are -m and ``-r log1p(m / r)``,
without a log-gamma. Gradients are given in closed form, with the same cancellations: by the mean they are
``r (x - m) / (m (m + r))``, and by r ``log1p(d) - d + x / (2 r (x + r)) + T(r) - T(x + r)`` with
``d = (x - m) / (m + r)`` and ``T = -S'``.

In float32 the error is below ``5e-7 + 1e-6 |log p|`` nats for rates of 1e-6 to 1e7, r of 1e-6 to exp(15) and counts up
to 2^24.

References:
    Loader 2000, Fast and accurate computation of binomial probabilities, which does the same for R's `dbinom`.
    DLMF, 5.11.1 (the series of S) and 5.5.1 (the recurrence that shifts its argument). https://dlmf.nist.gov/5
"""

from math import log, pi
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

_HALF_LOG_TWO_PI = log(2 * pi) / 2
# S(y) is taken at y + 4 by the recurrence; there four terms of its series leave 3e-9.
_SHIFT = 4.0
_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680)
_SLOPE = (1 / 12, -1 / 120, 1 / 252, -1 / 240)
# Below this |d| both logarithms of the deviance are expanded: log1p(d) = 2 (v + v^3 / 3 + ...), v = d / (2 + d).
_NEAR = 0.25
_ODD = (2 / 3, 2 / 5, 2 / 7, 2 / 9)


def stirling_remainder(y: Tensor) -> Tensor:
    """``lgamma(y) - (y - 1/2) log y + y - log(2 pi) / 2`` for positive y, error 5e-7 in float32."""
    small = y < _SHIFT
    u = 1 / torch.where(small, y + _SHIFT, y)
    low = torch.where(small, y, _SHIFT)
    w = 1 / (low + _SHIFT)
    product = low * w * (1 - 3 * w) * (1 - 2 * w) * (1 - w)  # y (y + 1) (y + 2) (y + 3) / (y + 4)^4
    shifted = (low - 0.5) * torch.log1p(_SHIFT / low) - _SHIFT - torch.log(product)
    return _polynomial(_SERIES, u * u) * u + torch.where(small, shifted, 0.0)


def stirling_slope(y: Tensor) -> Tensor:
    """``log y - 1 / (2 y) - digamma(y)``, the negative derivative of `stirling_remainder`."""
    small = y < _SHIFT
    u = 1 / torch.where(small, y + _SHIFT, y).square()
    low = torch.where(small, y, _SHIFT)
    ends = 0.5 / low + 0.5 / (low + _SHIFT)
    between = 1 / (low + 1) + 1 / (low + 2) + 1 / (low + 3)
    return _polynomial(_SLOPE, u) * u + torch.where(small, ends + between - torch.log1p(_SHIFT / low), 0.0)


def poisson_log_prob(x: Tensor, rate: Tensor) -> Tensor:
    """Log probability of counts, nats.

    Args:
        x: counts, float.
        rate: positive; broadcasts to ``x``.
    """
    log_prob: Tensor = _Poisson.apply(x, rate)
    return log_prob


def negative_binomial_log_prob(x: Tensor, rate: Tensor, dispersion: Tensor) -> Tensor:
    """Log probability of counts with mean m and variance ``m + m^2 / r``, nats.

    Args:
        x: counts, float.
        rate: m, positive; broadcasts to ``x``.
        dispersion: r, positive; broadcasts to ``x``.
    """
    log_prob: Tensor = _NegativeBinomial.apply(x, rate, dispersion)
    return log_prob


class _Poisson(torch.autograd.Function):
    """`poisson_log_prob` with its gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rate: Tensor) -> Tensor:
        k = x.clamp(min=1)
        above = k >= rate
        off = (k - rate).abs()
        excess = off / torch.minimum(k, rate)
        far = k * torch.log1p(excess) - off
        near = k * _log1p_beyond_linear(excess) + torch.where(above, off * excess, 0.0)
        deviance = _signed(above, torch.where(excess < _NEAR, near, far))
        return torch.where(x > 0, -deviance - _normalization(k), -rate)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        x, rate = ctx.saved_tensors
        return None, (gradient * ((x - rate) / rate)).sum_to_size(rate.shape)


class _NegativeBinomial(torch.autograd.Function):
    """`negative_binomial_log_prob` with its gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rate: Tensor, r: Tensor) -> Tensor:
        k = x.clamp(min=1)
        above = k >= rate
        off, low, high = (k - rate).abs(), torch.minimum(k, rate), torch.maximum(k, rate)
        # The two logarithms are those of 1 + first and 1 + second, both negated where the count is below its mean.
        second = off / (low + r)
        first = r * off / (low * (high + r))
        far = k * torch.log1p(first) - r * torch.log1p(second)
        linear = first * second * torch.where(above, r, -k)
        near = linear + k * _log1p_beyond_linear(first) - r * _log1p_beyond_linear(second)
        deviance = _signed(above, torch.where(torch.maximum(first, second) < _NEAR, near, far))
        spread = (torch.log(r) / 2 - stirling_remainder(r)) - torch.log(k + r) / 2 + stirling_remainder(k + r)
        return torch.where(x > 0, spread - deviance - _normalization(k), -r * torch.log1p(rate / r))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        x, rate, r = ctx.saved_tensors
        by_rate = by_r = None
        relative = (x - rate) / (rate + r)
        if ctx.needs_input_grad[1]:
            by_rate = (gradient * (r * relative / rate)).sum_to_size(rate.shape)
        if ctx.needs_input_grad[2]:
            far = torch.log((x + r) / (rate + r)) - relative
            curved = torch.where(relative.abs() < _NEAR, _log1p_beyond_linear(relative), far)
            rest = x / (2 * r * (x + r)) + stirling_slope(r) - stirling_slope(x + r)
            by_r = (gradient * (curved + rest)).sum_to_size(r.shape)
        return None, by_rate, by_r


def log_zero(rate: Tensor, dispersion: Tensor | None = None, gate_logits: Tensor | None = None) -> Tensor:
    """Log probability of a zero, nats; of a Poisson without a dispersion, and without excess zeros without a gate."""
    plain = -rate if dispersion is None else -dispersion * torch.log1p(rate / dispersion)
    return plain if gate_logits is None else softplus(plain - gate_logits) - softplus(-gate_logits)


def zero_inflated_log_prob(x: Tensor, log_prob: Tensor, at_zero: Tensor, gate_logits: Tensor) -> Tensor:
    """Log of ``g 1[x = 0] + (1 - g) p(x)``, nats.

    Args:
        x: counts.
        log_prob: log p(x) of the family without a gate, for positive counts.
        at_zero: `log_zero` with the gate.
        gate_logits: logit of g.
    """
    return torch.where(x > 0, log_prob - softplus(gate_logits), at_zero)


def _normalization(k: Tensor) -> Tensor:
    """``log(k!) - k log k + k``: of the data alone, without a gradient."""
    return torch.log(k) / 2 + _HALF_LOG_TWO_PI + stirling_remainder(k)


def _signed(positive: Tensor, value: Tensor) -> Tensor:
    return torch.where(positive, value, -value)


def _log1p_beyond_linear(d: Tensor) -> Tensor:
    """``log1p(d) - d`` for ``|d| <= 1/4``, without the cancellation; elsewhere a finite number."""
    d = d.clamp(-_NEAR, _NEAR)
    v = d / (2 + d)
    return _polynomial(_ODD, v * v) * v * v * v - d * v


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
