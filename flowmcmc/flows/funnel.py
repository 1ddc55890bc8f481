r"""A Gaussian mixture in coordinates whose scales follow one of them: the proposal for necks of hierarchical models.

    x = loc + scale * y,   y = B (shift + exp(a + b c) * z),   c = y_driver,   z ~ base

The driver (say the log of a group's standard deviation) is chosen on held-out states. Its effect b on the log scale of
each other coordinate, and the unit triangular B (driver first), are fitted to the tenth of the states deepest in the
neck, so that the map extrapolates to where no chain has been. Coefficients must be accurate there: with an error of
0.001 the flow misses the density where its scale is 0.001. Hierarchies are mostly written with integer coefficients,
slopes that are multiples of 1/2, and zero means, so the fit is rounded to these where a likelihood ratio test does not
reject them. The base, a mixture fitted by EM, corrects the map elsewhere. Coupling layers learn the same by gradients,
but later and less deep.
Funnels: Neal (2003). Non-centring, to which the map amounts: Papaspiliopoulos, Roberts, Sköld (2007).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from flowmcmc.base import Array, Flow, PyTree
from flowmcmc.flows.affine import Affine, cholesky_by_qr, standardise
from flowmcmc.flows.warped import Warp, warped_mixture

__all__ = ["Funnel", "funnel_mixture"]

DIGITS_SHARE = 0.6  # share of the dtype's digits that the range of scales may use; subtractions in B need the rest
NUM_CANDIDATE_DRIVERS = 4  # drivers that are tried
CLIP_DEVIATIONS = 3.0  # standard deviations at which points are clipped before they are correlated with log squares
SQUARE_FLOOR = 1e-6  # added to squares before their logarithm is taken
MAX_FUNNEL_ROWS = 4096  # for trying drivers; the fit uses as many, or ROWS_PER_COORDINATE * d if more
NECK_SHARE = 0.1  # share of the rows, deepest in the neck, that the fit uses: further out the means curve as well
ROWS_PER_COORDINATE = 40  # that the fit uses at least
NUM_NEWTON_STEPS = 10  # Newton steps for the slopes
NECK_RIDGE = 1e-5  # of the regression, relative to each standard deviation
ACCEPTED_DEVIATIONS = 4.0  # standard deviations above its mean up to which a chi-squared statistic is accepted
STATES_PER_INDEPENDENT = 10  # chain states that count as one independent state, because some chains wait long in a neck


class Funnel(NamedTuple):
    """`driver`, an index; `slopes` b, `shift` and `log_scale` a, each (d,); `matrix` B and its `inverse`, (d, d)."""

    driver: Array
    slopes: Array
    shift: Array
    log_scale: Array
    matrix: Array
    inverse: Array


class Rows(NamedTuple):
    """Standardised states `points` (n, d) and their `weights` (n,)."""

    points: Array
    weights: Array


def funnel_mixture(position: PyTree, *, num_components: int = 4, defensive: float = 0.05) -> Flow:
    """A Gaussian mixture whose coordinates' scales follow one of them log-linearly: funnels, centred hierarchies.

    Funnels: Neal (2003). Non-centred hierarchies: Papaspiliopoulos, Roberts and Sköld (2007).

    Parameters
    ----------
    position
        One position (any pytree of floating arrays, no chain axis): gives shapes and dtype.
    num_components, defensive
        As in `gaussian_mixture`.

    Returns
    -------
    Flow
        Over positions like `position`. Its parameters are `WarpedParams`, set by ``flow.fit`` alone; log densities are
        in nats. It has a `bijection`, so `neutra` can use it.

    Raises
    ------
    ValueError, TypeError
        For an option out of range, or a position that is not made of floating arrays.

    Example
    -------
    >>> flow = funnel_mixture(jnp.zeros(10))
    >>> result = sample(0, logdensity, wide, flow=flow, local=neutra(blackjax.mala, flow))
    """
    return warped_mixture(position, Warp(identity_funnel, widen, narrow, fit_funnel), num_components, defensive)


def identity_funnel(dim: int, dtype) -> Funnel:
    """The funnel that maps z to itself."""
    zero, eye = jnp.zeros(dim, dtype), jnp.eye(dim, dtype=dtype)
    return Funnel(jnp.array(0), zero, zero, zero, eye, eye)


def widen(funnel: Funnel, z: Array) -> tuple[Array, Array]:
    """Map z to y; return y and log|det dy/dz|."""
    c = funnel.shift[funnel.driver] + jnp.exp(funnel.log_scale[funnel.driver]) * z[funnel.driver]
    log_scale = funnel.log_scale + clip_log_scale(funnel.slopes * c)
    return funnel.matrix @ (funnel.shift + jnp.exp(log_scale) * z), jnp.sum(log_scale)


def narrow(funnel: Funnel, y: Array) -> tuple[Array, Array]:
    """Map y to z; return z and log|det dz/dy|."""
    log_scale = funnel.log_scale + clip_log_scale(funnel.slopes * y[funnel.driver])
    return (funnel.inverse @ y - funnel.shift) * jnp.exp(-log_scale), -jnp.sum(log_scale)


def clip_log_scale(log_scale: Array) -> Array:
    """Clip a log scale at 9.6 in float32, 21.6 in float64: beyond, rounding makes map and inverse disagree."""
    limit = -DIGITS_SHARE * jnp.log(jnp.finfo(log_scale.dtype).eps)
    return jnp.clip(log_scale, -limit, limit)


def fit_funnel(points: Array, weights: Array, heldout: Array, heldout_weights: Array, affine: Affine) -> Funnel:
    """Fit a funnel for each candidate driver, take the best on held-out rows, and refit it to the rows deepest inside.

    Candidates are the coordinates with which the log squares of the whitened `points` (n, d) correlate most. Logs and
    clipped points are used because a few rows in the mouth of a funnel would dominate otherwise.
    """
    share = (weights / jnp.sum(weights))[:, None]
    squares = solve_triangular(affine.cholesky, points.T, lower=True).T ** 2
    logs, clipped = jnp.log(squares + SQUARE_FLOOR), jnp.clip(points, -CLIP_DEVIATIONS, CLIP_DEVIATIONS)
    follows = (share * standardise(logs, weights)[1]).T @ standardise(clipped, weights)[1]
    follows = follows - jnp.diag(jnp.diagonal(follows))
    count, dim = points.shape
    drivers = jax.lax.top_k(jnp.sum(follows**2, axis=0), min(NUM_CANDIDATE_DRIVERS, dim))[1]
    in_use = jnp.sum(weights > 0)
    num_few, num_inside = min(MAX_FUNNEL_ROWS, count), min(max(MAX_FUNNEL_ROWS, ROWS_PER_COORDINATE * dim), count)
    spread = jnp.arange(num_few) * in_use // num_few  # rows with a positive weight come first

    everywhere, judges = Rows(points[spread], weights[spread]), Rows(heldout, heldout_weights)

    def trial(driver):
        funnel = fit_for_driver(driver, everywhere, everywhere, judges, jnp.inf, affine)
        z, log_det = jax.vmap(narrow, (None, 0))(funnel, heldout)
        score = jnp.sum(jnp.where(heldout_weights > 0, log_det - 0.5 * jnp.sum(z**2, axis=1), 0.0))
        return score, jnp.sign(mean_slope(funnel.slopes))

    scores, signs = jax.lax.map(trial, drivers)
    best = jnp.argmax(jnp.where(jnp.isnan(scores), -jnp.inf, scores))
    depth = jnp.where(weights > 0, -signs[best] * points[:, drivers[best]], -jnp.inf)
    inside = jax.lax.top_k(depth, num_inside)[1]
    deepest = Rows(points[inside], weights[inside])
    return fit_for_driver(drivers[best], deepest, everywhere, judges, NECK_SHARE * in_use, affine)


def mean_slope(slopes: Array) -> Array:
    """Mean of the slopes, weighted by their absolute values."""
    return jnp.sum(slopes * jnp.abs(slopes)) / (jnp.sum(jnp.abs(slopes)) + 1e-6)


def fit_for_driver(
    driver: Array, deepest: Rows, everywhere: Rows, heldout: Rows, num_rows: Array | float, affine: Affine
) -> Funnel:
    """Fit a funnel along `driver` by maximum likelihood for standard normal z.

    The triangular part, from a weighted covariance, alternates with a Newton step for the slopes. The fit uses the
    `num_rows` rows deepest in the neck, or ROWS_PER_COORDINATE times d if these are more. At the end coefficients are
    rounded to whole numbers where these rows allow it, since the map follows a neck as far as its coefficients are
    exact. A coordinate that is as wide in the neck as elsewhere, by a likelihood ratio test and on held-out rows, takes
    its regression from all rows: in the neck the coordinates that get narrow vary too little to show it.
    """
    points, weights = deepest
    dim = points.shape[1]
    index = jnp.arange(dim)
    order = jnp.argsort(jnp.where(index == driver, -1, index))
    rows, back = points[:, order], jnp.argsort(order)
    c, is_driver = rows[:, 0], index == 0
    ranked = jnp.sort(jnp.where(weights > 0, c, jnp.inf))
    in_use = jnp.sum(weights > 0)
    few = jnp.minimum(4 * dim, in_use // 4)  # extreme values of c that are clipped, so that no row dominates
    inside = jnp.clip(num_rows, min=ROWS_PER_COORDINATE * dim, max=in_use - 1).astype(int)
    whole = partial(rounded_regression, loc=affine.loc[order], scale=affine.scale[order])

    def weigh(slopes):
        lead = mean_slope(slopes)
        is_narrow = jnp.where(lead > 0, c <= ranked[inside], c >= ranked[in_use - 1 - inside])
        share = weights * jnp.where(lead != 0, is_narrow, True)
        share = share / jnp.sum(share)
        limited = jnp.clip(c, ranked[few], ranked[in_use - 1 - few])
        return share, share * jnp.exp(-2 * clip_log_scale(lead * limited))

    def squares(slopes, share, inverse, shift):
        residual = rows @ inverse.T - shift[None]
        return share[:, None] * residual**2 * jnp.exp(-2 * clip_log_scale(slopes * c[:, None]))

    def step(_, slopes):
        share, weight = weigh(slopes)
        mean, inverse = triangular_regression(rows, weight)
        q = squares(slopes, share, inverse, inverse @ mean)
        q = q / jnp.sum(q, axis=0)
        centre = c @ q
        variance = jnp.sum(q * (c[:, None] - centre[None]) ** 2, axis=0)
        change = (c @ share - centre) / (2 * variance + 1e-6)
        return jnp.where(is_driver, 0.0, slopes - jnp.clip(change, -0.5, 0.5))

    def log_scale(slopes, inverse, shift):
        return 0.5 * jnp.log(jnp.sum(squares(slopes, share, inverse, shift), axis=0) + 1e-12)

    slopes = jax.lax.fori_loop(0, NUM_NEWTON_STEPS, step, jnp.zeros(dim, points.dtype))
    share, weight = weigh(slopes)
    count = jnp.minimum(inside, jnp.sum(share > 0)) / STATES_PER_INDEPENDENT
    inverse, shift = whole(rows, weight, count)

    def loss(slopes, inverse, shift):
        return log_scale(slopes, inverse, shift) + slopes * (c @ share)

    half = jnp.round(2 * slopes / affine.scale[driver]) / 2 * affine.scale[driver]
    worse = loss(half, inverse, shift) - loss(slopes, inverse, shift)
    slopes = jnp.where(2 * count * worse < max_chi_squared(1.0), half, slopes)
    scale = log_scale(slopes, inverse, shift)
    flat = whole(
        everywhere.points[:, order], everywhere.weights, jnp.sum(everywhere.weights > 0) / STATES_PER_INDEPENDENT
    )
    share_of = lambda rows: rows.weights / jnp.sum(rows.weights)
    left = lambda rows, inverse, shift: rows.points[:, order] @ inverse.T - shift[None]
    flat_scale = 0.5 * jnp.log(share_of(everywhere) @ left(everywhere, *flat) ** 2 + 1e-12)

    def surprise(slopes, scale, inverse, shift):
        log_scales = scale + clip_log_scale(slopes * heldout.points[:, driver, None])
        return share_of(heldout) @ (log_scales + 0.5 * (left(heldout, inverse, shift) * jnp.exp(-log_scales)) ** 2)

    is_flat = surprise(jnp.zeros(dim), flat_scale, *flat) < surprise(slopes, scale, inverse, shift)
    is_flat &= ~is_driver & (
        2 * count * (loss(0.0, *flat) - loss(slopes, inverse, shift)) < max_chi_squared(index + 1.0)
    )
    slopes, scale = jnp.where(is_flat, 0.0, slopes), jnp.where(is_flat, flat_scale, scale)
    inverse, shift = jnp.where(is_flat[:, None], flat[0], inverse), jnp.where(is_flat, flat[1], shift)
    unit = solve_triangular(inverse, jnp.eye(dim, dtype=rows.dtype), lower=True, unit_diagonal=True)

    home = lambda matrix: matrix[back][:, back]
    return Funnel(driver, slopes[back], shift[back], scale[back], home(unit), home(inverse))


def triangular_regression(rows: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted mean, and the unit triangular matrix that subtracts each coordinate's regression on those before."""
    weight = weights / jnp.sum(weights)
    mean = weight @ rows
    factor = cholesky_by_qr(jnp.sqrt(weight)[:, None] * (rows - mean[None]), NECK_RIDGE)
    unit = factor / jnp.diagonal(factor)[None]
    eye = jnp.eye(rows.shape[1], dtype=rows.dtype)
    return mean, solve_triangular(unit, eye, lower=True, unit_diagonal=True)


def rounded_regression(rows: Array, weights: Array, count: Array, *, loc: Array, scale: Array) -> tuple[Array, Array]:
    """Matrix of `triangular_regression` and means of the residuals, rounded where a likelihood ratio test allows it.

    In the density's own units the coefficients of a hierarchy are whole numbers (0, or 1 for the mean of a group) and
    the residuals have mean zero. Rows for which the test does not reject both, or the former alone, are set to that.
    """
    weight = weights / jnp.sum(weights)
    mean, inverse = triangular_regression(rows, weights)
    units = scale[:, None] / scale[None]
    whole = jnp.round(inverse * units) / units
    degrees = jnp.arange(len(inverse), dtype=rows.dtype)
    shift = inverse @ mean
    least = weight @ (rows @ inverse.T - shift[None]) ** 2
    is_free = degrees == 0  # the driver
    for number, candidate in ((0, whole @ mean), (1, -whole @ (loc / scale))):
        worse = weight @ (rows @ whole.T - candidate[None]) ** 2 / (least + 1e-30) - 1
        is_allowed = ~is_free & (count * worse < max_chi_squared(degrees + number))
        inverse = jnp.where(is_allowed[:, None], whole, inverse)
        shift = jnp.where(is_allowed, candidate, shift)
    return inverse, shift


def max_chi_squared(degrees: Array | float) -> Array | float:
    """Largest accepted chi-squared statistic: its mean, `degrees`, and ACCEPTED_DEVIATIONS standard deviations."""
    return degrees + ACCEPTED_DEVIATIONS * (2 * degrees) ** 0.5
