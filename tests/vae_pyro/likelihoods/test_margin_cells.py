"""Columns as they are: densities that integrate to one, draws that agree with them, and scores that rise."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import ks_1samp, norm
from torch import Tensor

from vae_pyro.core.isolation import seeded
from vae_pyro.data.tables.margins import CAPACITY, fit_margin, lattice_step
from vae_pyro.data.tables.schema import Column
from vae_pyro.densities.measure import Measure
from vae_pyro.likelihoods.margin_cells import MarginCells, log_interval
from vae_pyro.likelihoods.table import Table
from vae_pyro.nn.margins import Margins

ROWS = 3000
RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(size=ROWS)


def _income() -> np.ndarray:
    return np.where(RANDOM.random(ROWS) < 0.3, 0.0, np.exp(8 + NORMAL))


# Values, kind and step: each kind of margin, among them masses at bounds and within, and lattices fine and coarse.
COLUMNS: dict[str, tuple[np.ndarray, str, float | None]] = {
    "normal": (50 + 3 * NORMAL, "real", None),
    "skewed": (np.exp(2 + NORMAL), "positive", None),
    "two modes": (np.where(RANDOM.random(ROWS) < 0.4, NORMAL - 6, 0.5 * NORMAL + 4), "real", None),
    "heavy tails": (RANDOM.standard_cauchy(ROWS), "real", None),
    "mass at a bound": (_income(), "real", None),
    "masses within": (
        np.where(RANDOM.random(ROWS) < 0.5, RANDOM.choice([-1.0, 0.25, 2.0], ROWS), NORMAL),
        "real",
        None,
    ),
    "masses at both ends": (np.clip(0.5 + 0.4 * NORMAL, 0, 1), "real", None),
    "coarse lattice": (np.round(20 + 3 * NORMAL), "real", 1.0),
    "fine lattice": (np.round(40 * NORMAL, 2), "real", 0.01),
    "heaps on a lattice": (
        np.where(RANDOM.random(ROWS) < 0.4, 50 * np.round(20 + 5 * NORMAL), np.round(1000 + 250 * NORMAL)).clip(1),
        "positive",
        1.0,
    ),
    "small positive lattice": (np.ceil(np.exp(0.8 + 0.9 * NORMAL)), "positive", 1.0),
}


def margins_of(name: str) -> tuple[Margins, Tensor]:
    values, kind, step = COLUMNS[name]
    column = Column(name=name, kind=kind, low=values.min(), high=values.max(), step=step)  # type: ignore[arg-type]
    margins = Margins([column])
    x = torch.from_numpy(values.astype(np.float32).astype(np.float64))[:, None]
    margins.fit(x, torch.ones_like(x, dtype=torch.bool))
    return margins, x


def cells(margins: Margins, loc: float = 0.0, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> MarginCells:
    return MarginCells(torch.tensor([loc], dtype=dtype), torch.tensor([scale], dtype=dtype), margins)


def atoms_of(margins: Margins) -> Tensor:
    x = margins.knots.view(torch.float64)[0, 0, : int(margins.size)]
    return x[1:][x.diff() == 0]


def total(density: MarginCells) -> float:
    """Masses and the integral between them, by Gauss-Legendre quadrature between knots and far beyond them."""
    margins = density.margins
    step = float(margins.step.view(torch.float64))
    if step:
        low, high = (margins.inverse(torch.tensor([u], dtype=torch.float64))[0] for u in (-9.0, 9.0))
        lattice = torch.arange(round(float(low) / step), round(float(high) / step) + 1, dtype=torch.float64) * step
        return float((density.log_prob(lattice[:, None]).exp() * step).sum())
    knots = margins.knots.view(torch.float64)[0, 0, : int(margins.size)].unique()
    positive = bool(margins.positive)
    center, scale = margins.about.view(torch.float64)[2:, 0]
    t = knots.log() if positive else torch.asinh((knots - center) / scale)
    t = torch.cat(
        [
            torch.linspace(float(t[0]) - 30, float(t[0]), 400).double(),
            t,
            torch.linspace(float(t[-1]), float(t[-1]) + 30, 400).double(),
        ]
    ).unique()
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(16))
    half = t.diff()[:, None] / 2
    at = (t[:-1, None] + half * (1 + nodes)).flatten()
    x, slope = (at.exp(), at.exp()) if positive else (center + scale * at.sinh(), scale * at.cosh())
    smooth = (density.log_prob(x[:, None])[:, 0].exp() * slope * (half * weights).flatten()).sum()
    atoms = atoms_of(margins)
    return float(smooth + density.log_prob(atoms[:, None]).exp().sum())


@pytest.mark.parametrize("name", COLUMNS)
def test_the_density_and_the_masses_integrate_to_one(name: str) -> None:
    margins, _ = margins_of(name)
    for loc, scale in ((0.0, 1.0), (0.7, 0.4), (-1.5, 0.2)):
        assert total(cells(margins, loc, scale)) == pytest.approx(1, abs=2e-5)


def cumulative(margins: Margins, loc: float, scale: float) -> Callable[[np.ndarray], np.ndarray]:
    """Exact distribution function: scores of the upper ends of cells."""

    def at_most(x: np.ndarray) -> np.ndarray:
        return norm.cdf((margins(torch.from_numpy(np.asarray(x, dtype=np.float64))[:, None]).high[:, 0] - loc) / scale)

    return at_most


@pytest.mark.parametrize("name", COLUMNS)
def test_draws_agree_with_the_density(name: str) -> None:
    """Kolmogorov's distance of 4,000 draws, conservative for discrete parts; each fails in 1 of 10^4 seeds."""
    margins, _ = margins_of(name)
    for loc, scale in ((0.0, 1.0), (0.7, 0.4)):
        with seeded(0):
            x = cells(margins, loc, scale).sample((4000,))[:, 0].numpy()
        at_most = cumulative(margins, loc, scale)
        points, counts = np.unique(x, return_counts=True)
        if len(points) == len(x):
            assert ks_1samp(x, at_most).pvalue > 1e-4
        else:  # at the points themselves, from above
            assert np.abs(np.cumsum(counts) / len(x) - at_most(points)).max() < 2.23 / len(x) ** 0.5


@pytest.mark.parametrize("name", COLUMNS)
def test_scores_rise_and_lead_back(name: str) -> None:
    margins, x = margins_of(name)
    points = torch.cat(
        [x.flatten().unique(), x.min() - 1 - x.abs().max() * torch.arange(2), x.max() * torch.arange(2, 4)]
    )
    points = points[points > 0] if bool(margins.positive) else points
    points = points.float().double().unique()
    scores = margins(points[:, None])
    assert (scores.low[1:] >= scores.high[:-1] - 1e-12).all()
    assert (scores.middle.diff(dim=0) > 0).all()
    back = margins.inverse(scores.middle)[:, 0]
    step = float(margins.step.view(torch.float64))
    expected = (points / step).round().clamp(min=1 if bool(margins.positive) else -torch.inf) * step if step else points
    inside = scores.middle[:, 0].abs() < 400
    torch.testing.assert_close(back[inside], expected[inside], rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("name", COLUMNS)
def test_scores_of_the_data_are_standard_normal(name: str) -> None:
    """Distribution functions of margin and data agree within 0.025, the 95 % band of 3,000 data."""
    margins, x = margins_of(name)
    points, counts = np.unique(x.numpy(), return_counts=True)
    at_most = cumulative(margins, 0.0, 1.0)(points)
    assert np.abs(at_most - np.cumsum(counts) / len(x)).max() < 0.025


@pytest.mark.parametrize("name", COLUMNS)
def test_float32_is_as_good(name: str) -> None:
    """Densities of a float32 model at the data, and after a cast of the module there and back."""
    margins, x = margins_of(name)
    exact = cells(margins, 0.3, 0.2).log_prob(x)
    single = cells(margins.float().double(), 0.3, 0.2, torch.float32).log_prob(x.float())
    assert single.dtype == torch.float32
    near = exact > -100
    assert float((single - exact)[near].abs().max()) < 1e-3
    assert float((single - exact)[near].abs().mean()) < 2e-5


def test_repeated_values_have_their_shares() -> None:
    margins, x = margins_of("masses within")
    assert atoms_of(margins).tolist() == [-1.0, 0.25, 2.0]
    for atom in (-1.0, 0.25, 2.0):
        share = float((x == atom).double().mean())
        assert float(cells(margins).log_prob(torch.tensor([[atom]]).double()).exp()) == pytest.approx(share, abs=1e-6)
    with seeded(0):
        income, share = cells(margins_of("mass at a bound")[0]).sample((4000,)), 0.3
    assert float((income == 0).double().mean()) == pytest.approx(share, abs=0.05)
    assert income.min() == 0
    with seeded(0):
        clipped = cells(margins_of("masses at both ends")[0], 0.0, 3.0).sample((2000,))
    assert (float(clipped.min()), float(clipped.max())) == (0, 1)


def test_few_repeated_values_are_no_bound() -> None:
    """Of 230 roundings the lowest repeats by chance: values below it stay possible."""
    x = np.append(np.round(200 + 14 * NORMAL[:230]), [172.0] * 6)
    column = Column(name="x", kind="real", low=150, high=250, step=1.0)
    margins = Margins([column])
    margins.fit(torch.from_numpy(x)[:, None], torch.ones(len(x), 1, dtype=torch.bool))
    assert float(cells(margins).log_prob(torch.tensor([[x.min() - 3]]).double())) > -20


def test_a_lattice_has_a_density_in_units_of_x() -> None:
    """As a normal distribution's, averaged over the roundings: 0.01 nats of a fit to 3,000 data."""
    margins, x = margins_of("fine lattice")
    found = cells(margins).log_prob(x).mean()
    assert float(found) == pytest.approx(norm(x.mean(), x.std()).logpdf(x.numpy()).mean(), abs=0.03)
    with seeded(0):
        draws = cells(margins).sample((100,))
    torch.testing.assert_close((draws / 0.01).round() * 0.01, draws)


def test_moments_are_those_of_draws() -> None:
    """Within 5 standard errors of 40,000 draws, and 2 % for the rule, which leaves out the tails."""
    for name in ("skewed", "masses within", "coarse lattice", "masses at both ends"):
        margins, _ = margins_of(name)
        density = cells(margins, 0.2, 0.5)
        with seeded(0):
            x = density.sample((40_000,))
        assert float(density.mean) == pytest.approx(float(x.mean()), abs=float(x.std()) * 0.045)
        assert float(density.variance) == pytest.approx(float(x.var()), rel=0.1)


def test_missing_values_and_constants_do_not_matter() -> None:
    column = Column(name="x", kind="real")
    margins, same = Margins([column, column]), Margins([column, column])
    x = torch.from_numpy(NORMAL[:200, None] * [1, 0] + [0, 3])
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    margins.fit(x, observed)
    same.fit(torch.where(observed, x, 99.0), observed)
    assert (margins.knots == same.knots).all()
    assert MarginCells(torch.zeros(2), torch.ones(2), margins).log_prob(x.float()).isfinite().all()
    assert int(margins.size[1]) == 1


def test_many_heaps_fit_into_the_knots() -> None:
    x = RANDOM.choice(RANDOM.normal(size=2000), 20_000)
    margin = fit_margin(x, 0.0, False)
    assert len(margin.x) <= CAPACITY


def test_which_columns_lie_on_a_lattice() -> None:
    about = {"name": "x", "low": 0.0, "high": 100.0}
    assert lattice_step(Column(**about, kind="real", step=0.5)) == 0.5
    assert lattice_step(Column(**about, kind="real", step=1e-5)) == 0
    assert lattice_step(Column(**about, kind="real")) == 0
    assert lattice_step(Column(**about, kind="count", step=1.0)) == 0


def test_intervals_have_the_digits_of_their_type() -> None:
    """Against differences of distribution functions in the tail where they are small, in float64."""
    middle = torch.tensor([-30.0, -6.0, -1.0, 0.0, 0.4, 5.0, 25.0]).double()[:, None]
    width = torch.tensor([1e-6, 1e-3, 0.05, 0.19, 0.21, 1.0, 4.0]).double()
    low, high = middle - width / 2, middle + width / 2
    found = log_interval(low, middle.expand_as(low), high, width.expand_as(low))
    single = log_interval(*(part.expand_as(low).float() for part in (low, middle, high, width)))
    nodes, weights = np.polynomial.legendre.leggauss(60)
    at = middle.numpy()[..., None] + width.numpy()[:, None] / 2 * nodes
    exact = norm.logpdf(at)
    largest = exact.max(-1, keepdims=True)
    expected = np.log((np.exp(exact - largest) * weights).sum(-1) * width.numpy() / 2) + largest[..., 0]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(single, expected, rtol=2e-6, atol=2e-6)


def test_gradients_are_finite_in_every_branch() -> None:
    for name in COLUMNS:
        margins, x = margins_of(name)
        loc = torch.full((len(x), 1), 0.3, requires_grad=True)
        scale = torch.full((len(x), 1), 0.01, requires_grad=True)
        for gradient in torch.autograd.grad(MarginCells(loc, scale, margins).log_prob(x.float()).sum(), [loc, scale]):
            assert gradient.isfinite().all(), name


def test_masses_off_lattices_make_another_measure() -> None:
    """Such log densities are compared with none that have no masses."""
    for values, measure in ((_income(), Measure.DENSITY_AND_MASSES), (NORMAL, Measure.DENSITY)):
        column = Column(name="x", kind="real", low=values.min(), high=values.max())
        likelihood = Table((1,), columns=(column,), margins="fitted")
        assert likelihood.measure == Measure.DENSITY
        x = torch.from_numpy(values[:, None])
        likelihood.initialize(x, torch.ones_like(x, dtype=torch.bool))
        assert likelihood.measure == measure
        assert likelihood.measure.dense


@pytest.mark.parametrize("step", [0.0, 0.01])
@pytest.mark.parametrize("outlier", [0.0, 90.0])
def test_a_lone_outlier_has_a_score_that_data_can_have(step: float, outlier: float) -> None:
    """One row of zeros among lengths of 5 mm and more had a score of -28, from which fits diverged."""
    values = np.append(np.round(5.5 + 0.3 * NORMAL, 2), outlier)
    column = Column(name="x", kind="real", low=values.min(), high=values.max(), step=step or None)
    margins = Margins([column])
    x = torch.from_numpy(values)[:, None]
    margins.fit(x, torch.ones_like(x, dtype=torch.bool))
    scores = margins(x).middle.flatten()
    assert scores.abs().max() == scores[-1].abs()
    assert 3 < scores[-1].abs() < 5  # the largest of 3,000 normal numbers is about 3.4
    others = margins(torch.from_numpy(np.round(5.5 + 0.3 * NORMAL, 2))[:, None]).middle
    assert others.abs().max() < 4
