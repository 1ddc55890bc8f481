"""Every flow is a normalised density with exact draws, whatever its parameters; and starts at its base density."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import integrate, stats
from scipy.special import log_softmax
from support.helpers import THRESHOLD

from flowmcmc import (
    bent_mixture,
    funnel_mixture,
    gaussian_mixture,
    marginal_mixtures,
    real_nvp,
    spline_flow,
)
from flowmcmc.flows import mixture as base
from flowmcmc.flows.bend import Bend
from flowmcmc.flows.layered import FlowParams
from flowmcmc.flows.marginals import MarginalParams, Marginals
from flowmcmc.flows.warped import WarpedParams

NVP = partial(real_nvp, num_layers=3, hidden=8)
SPLINE = partial(spline_flow, num_layers=2, hidden=8, num_bins=4)
NUM_ROWS = 20_000
DICT = {"a": jnp.zeros(()), "b": jnp.zeros((2, 1)), "c": jnp.zeros(2)}
# constructor, position, num_components, defensive: every pair of values occurs somewhere
CASES = {
    "gaussian, d=1": (gaussian_mixture, jnp.zeros(1), 1, 0.1),
    "gaussians, d=2": (gaussian_mixture, jnp.zeros(2), 4, 0.0),
    "gaussians, dict": (gaussian_mixture, DICT, 4, 0.1),
    "marginals, d=1": (marginal_mixtures, jnp.zeros(1), 3, 0.1),
    "marginals, d=2": (marginal_mixtures, jnp.zeros(2), 4, 0.0),
    "marginals, dict": (marginal_mixtures, DICT, 4, 0.1),
    "funnel, d=1": (funnel_mixture, jnp.zeros(1), 3, 0.1),
    "funnel, d=2": (funnel_mixture, jnp.zeros(2), 4, 0.0),
    "funnel, dict": (funnel_mixture, DICT, 1, 0.2),
    "funnel, mostly defensive": (funnel_mixture, jnp.zeros(2), 1, 0.9),
    "bent, d=1": (bent_mixture, jnp.zeros(1), 3, 0.1),
    "bent, d=2": (bent_mixture, jnp.zeros(2), 4, 0.0),
    "bent, dict": (bent_mixture, DICT, 1, 0.2),
    "nvp, scalar": (NVP, jnp.zeros(()), 4, 0.0),
    "nvp, d=2": (NVP, jnp.zeros(2), 4, 0.1),
    "nvp, d=3": (NVP, jnp.zeros(3), 1, 0.0),
    "nvp, dict": (NVP, DICT, 1, 0.1),
    "spline, d=1": (SPLINE, jnp.zeros(1), 1, 0.0),
    "spline, d=2": (SPLINE, jnp.zeros(2), 1, 0.1),
    "spline, d=5": (SPLINE, jnp.zeros(5), 4, 0.0),
    "spline, dict": (SPLINE, DICT, 4, 0.1),
}


def build(case):
    constructor, position, num_components, defensive = CASES[case]
    return constructor(position, num_components=num_components, defensive=defensive), position


@jax.jit
def normals(seed, index):
    """As many as the largest leaf takes."""
    return jax.random.normal(jax.random.fold_in(jax.random.key(seed), index), (1024,))


def perturbed(params, amount, seed=0):
    """Every float leaf moved; of the affine part and the mixture only what keeps them valid.

    By NumPy: a program for all leaves would compile for seconds.
    """

    def noise(leaf, index):
        return amount * np.asarray(normals(seed, index))[: leaf.size].reshape(leaf.shape)

    params = jax.tree.map(np.asarray, params)
    if isinstance(params, WarpedParams):
        return perturbed_warp(params, noise)
    loc, scale, cholesky = params.affine
    lower = np.tril(noise(cholesky, 101), -1)
    moved = params.affine._replace(
        loc=loc + noise(loc, 102), scale=scale * np.exp(noise(scale, 103)), cholesky=cholesky + lower
    )
    if isinstance(params, MarginalParams):
        log_weights, means, scales = params.marginals
        log_weights = log_softmax(log_weights + noise(log_weights, 104), axis=1)
        scales = scales * np.exp(noise(scales, 106))
        return MarginalParams(moved, Marginals(log_weights, means + 2 * noise(means, 105), scales))
    leaves, treedef = jax.tree.flatten(params.layers)
    layers = jax.tree.unflatten(treedef, [leaf + noise(leaf, i) for i, leaf in enumerate(leaves)])
    return FlowParams(moved, perturbed_mixture(params.mixture, noise), layers)


def perturbed_mixture(mixture, noise):
    return base.from_cholesky(
        log_softmax(noise(mixture.log_weights, 104)) if len(mixture.log_weights) > 1 else mixture.log_weights,
        mixture.means + 2 * noise(mixture.means, 105),
        mixture.cholesky + np.tril(noise(mixture.cholesky, 106), -1),
    )


def perturbed_warp(params, noise):
    warp = params.warp
    return params._replace(
        loc=params.loc + noise(params.loc, 108),
        scale=params.scale * np.exp(noise(params.scale, 109)),
        warp=perturbed_bend(warp, noise) if isinstance(warp, Bend) else perturbed_funnel(warp, noise),
        mixture=perturbed_mixture(params.mixture, noise),
    )


def perturbed_funnel(funnel, noise):
    """The driver keeps its scale and place: it comes first in the triangular part."""
    index = np.arange(len(funnel.slopes))
    is_driver = index == funnel.driver
    order = np.argsort(np.where(is_driver, -1, index))
    back = np.argsort(order)
    matrix = funnel.matrix[order][:, order] + np.tril(noise(funnel.matrix, 101), -1)
    matrix = matrix[back][:, back]
    return funnel._replace(
        slopes=np.where(is_driver, 0.0, funnel.slopes + noise(funnel.slopes, 102)),
        shift=funnel.shift + noise(funnel.shift, 103),
        log_scale=funnel.log_scale + noise(funnel.log_scale, 107),
        matrix=matrix,
        inverse=np.linalg.inv(matrix),
    )


def perturbed_bend(bend, noise):
    """Drivers bend those that come after them alone."""
    order = np.arange(len(bend.drivers))
    rank = np.full(len(bend.shift), len(order))
    rank[bend.drivers] = order
    cholesky = bend.cholesky + np.tril(noise(bend.cholesky, 101), -1)
    is_before = order[None] < rank[:, None]
    return bend._replace(
        linear=bend.linear + np.where(is_before, noise(bend.linear, 102), 0.0),
        quadratic=bend.quadratic + np.where(is_before, noise(bend.quadratic, 107), 0.0),
        shift=bend.shift + noise(bend.shift, 103),
        cholesky=cholesky,
        inverse=np.linalg.inv(cholesky),
    )


def bimodal(position, num, seed=0):
    """Two clusters, in every leaf."""
    rng = np.random.default_rng(seed)
    vector, unravel = ravel_pytree(position)
    rows = np.where(rng.random((num, 1)) < 0.4, -2.0, 1.5) + rng.gamma(2.0, 0.5, (num, vector.size))
    return jax.vmap(unravel)(rows.astype(vector.dtype))


def fitted(flow, position):
    positions, heldout = bimodal(position, 500), bimodal(position, 200, 1)
    ones = partial(jnp.ones, dtype=jax.tree.leaves(position)[0].dtype)
    start = flow.init(jax.random.key(0), position)
    return flow.fit(jax.random.key(1), start, positions, ones(500), heldout, ones(200))


@cache
def sets_of(case):
    """Compiled once for the tests in either precision."""
    flow, position = build(case)
    fit, start = jax.jit(lambda: (fitted(flow, position), flow.init(jax.random.key(0), position)))()
    both = perturbed(fit, 0.3, 1)
    both = both._replace(affine=fit.affine) if hasattr(fit, "affine") else both
    return {"fitted": fit, "perturbed": perturbed(start, 0.3), "both": both}


def flat(positions):
    return np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(positions)], axis=1)


def in_chunks(log_prob):
    """``log_prob(params, row)`` of many rows: compiled for `NUM_ROWS` of them, however many there are."""
    compiled = jax.jit(jax.vmap(log_prob, (None, 0)))

    def of_rows(params, rows):
        padded = np.pad(rows, ((0, -len(rows) % NUM_ROWS), (0, 0)), mode="edge")
        chunks = [compiled(params, chunk) for chunk in np.split(padded, len(padded) // NUM_ROWS)]
        return np.concatenate(chunks)[: len(rows)]

    return of_rows


@pytest.mark.parametrize("case", CASES)
def test_draws_and_density_agree_and_are_normalised(case):
    flow, position = build(case)
    defensive = CASES[case][3]
    _, unravel = ravel_pytree(position)
    dim = ravel_pytree(position)[0].size
    keys = jax.random.split(jax.random.key(2), NUM_ROWS)
    sample = jax.jit(jax.vmap(flow.sample_and_log_prob, (0, None)))
    log_prob = in_chunks(lambda params, row: flow.log_prob(params, unravel(row)))
    for name, params in sets_of(case).items():
        positions, log_q = sample(keys, params)
        assert jax.tree.map(lambda x: x.shape[1:], positions) == jax.tree.map(jnp.shape, position)
        draws = flat(positions)
        # both passes are one density; the far ends of a funnel spend digits on its range of scales
        error = np.abs(log_q - log_prob(params, draws))
        assert np.quantile(error, 0.99) < 1e-8, name
        assert error.max() < (1e-5 if isinstance(params, WarpedParams) else 1e-8), name
        # E_q[1_A r / q] = E_r[1_A] for any density r: wrong if q is not normalised or the draws are not its own.
        # A, where r / q is below e^3, keeps the variance small
        rng = np.random.default_rng(0)
        centre, deviation = np.median(draws, axis=0), 0.4 * np.subtract(*np.quantile(draws, [0.75, 0.25], axis=0))
        from_r = centre + deviation * rng.standard_normal(draws.shape)
        log_r = [stats.norm(centre, deviation).logpdf(rows).sum(1) for rows in (draws, from_r)]
        log_ratio = [r - np.asarray(q) for r, q in zip(log_r, (log_q, log_prob(params, from_r)))]
        inside = np.where(log_ratio[0] < 3, np.exp(np.minimum(log_ratio[0], 3)), 0)
        share = (log_ratio[1] < 3).astype(float)
        error = np.sqrt((inside.var() + share.var()) / len(draws))
        assert share.mean() > 0.1, name  # the statement has content
        assert abs(inside.mean() - share.mean()) < THRESHOLD * error, name
        if dim == 1:
            reach = 1 + 0.5 * np.ptp(draws)
            grid = np.linspace(draws.min() - reach, draws.max() + reach, 5 * NUM_ROWS)
            density = np.exp(log_prob(params, grid[:, None]))
            cdf = integrate.cumulative_simpson(density, x=grid, initial=0)
            assert cdf[-1] == pytest.approx(1, abs=1e-3 if defensive else 1e-6), name  # Student tails
            assert stats.kstest(draws[:, 0], lambda x: np.interp(x, grid, cdf)).pvalue > 1e-4, name  # noqa: B023
        if dim == 2:
            check_grid(partial(log_prob, params), draws, 400 if case.startswith("spline") else 200)


@pytest.mark.parametrize("case", CASES)
def test_in_single_precision_passes_agree_to_the_worst_draw(case):
    constructor, position, num_components, defensive = CASES[case]
    single = partial(jax.tree.map, lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x)
    flow = constructor(single(position), num_components=num_components, defensive=defensive)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def both(key, params):
        position, log_q = flow.sample_and_log_prob(key, params)
        return position, log_q, flow.log_prob(params, position)

    keys = jax.random.split(jax.random.key(2), NUM_ROWS)
    for name, params in sets_of(case).items():
        draws, log_q, again = both(keys, single(params))
        assert {leaf.dtype for leaf in jax.tree.leaves((draws, log_q, again))} == {jnp.dtype("float32")}
        error = np.abs(log_q - again)
        assert np.quantile(error, 0.99) < 1e-4, name
        # a funnel's scales may use up three fifths of the digits, and what is left is squared in the tails
        assert error.max() < (1.0 if isinstance(params, WarpedParams) else 2e-2), (name, error.max())


def check_grid(log_prob, draws, cells):
    """The mass of boxes by the midpoint rule is the share of draws in them.

    Twice as many cells move no mass by more than 3e-5, and that of a spline, which has kinks, by 4e-4.
    """
    for low, high in ((0.02, 0.98), (0.1, 0.6), (0.4, 0.9)):
        corners = np.quantile(draws, [low, high], axis=0)
        edges = [np.linspace(*corners[:, i], cells + 1) for i in range(2)]
        centres = np.stack(np.meshgrid(*[(e[1:] + e[:-1]) / 2 for e in edges], indexing="ij"), -1).reshape(-1, 2)
        mass = np.exp(log_prob(centres)).sum() * np.prod([e[1] - e[0] for e in edges])
        share = ((draws > corners[0]) & (draws < corners[1])).all(1).mean()
        assert abs(mass - share) < THRESHOLD * np.sqrt(share * (1 - share) / len(draws)) + 2e-3


@pytest.mark.parametrize("case", ["nvp, d=3", "nvp, dict", "spline, d=1", "spline, d=5", "gaussians, d=2"])
def test_starts_at_the_base_density(case):
    flow, position = build(case)

    @jax.jit
    def start_and_draws():
        params = flow.init(jax.random.key(0), position)
        return jax.vmap(flow.sample_and_log_prob, (0, None))(jax.random.split(jax.random.key(1), 100), params)

    positions, log_q = start_and_draws()
    rows = flat(positions)
    normal = stats.norm.logpdf(rows).sum(1)
    student = stats.multivariate_t(np.zeros(rows.shape[1]), 4.0 * np.eye(rows.shape[1]), df=3).logpdf(rows)
    defensive = CASES[case][3]
    expected = np.log((1 - defensive) * np.exp(normal) + defensive * np.exp(student))
    assert np.allclose(log_q, expected, rtol=1e-10)


@pytest.mark.parametrize("case", ["nvp, dict", "spline, d=5"])
def test_gradients_reach_the_layers_alone_and_are_finite(case):
    flow, position = build(case)
    params = sets_of(case)["fitted"]

    @jax.jit
    def gradients(params, row, key):
        return (
            jax.grad(flow.log_prob)(params, row),
            jax.grad(lambda p: flow.sample_and_log_prob(key, p)[1])(params),
            jax.grad(lambda p: jnp.sum(ravel_pytree(flow.sample_and_log_prob(key, p)[0])[0] ** 2))(params),
        )

    rows = jax.tree.map(np.asarray, bimodal(position, 5, 3))
    far = jax.tree.map(lambda x: 1e4 * x, rows)
    for positions in (rows, far):
        for i in range(5):
            row = jax.tree.map(lambda x: x[i], positions)  # noqa: B023
            for grads in jax.tree.map(np.asarray, gradients(params, row, jax.random.key(i))):
                fixed = jax.tree.leaves((grads.affine, grads.mixture))
                assert all((leaf == 0).all() for leaf in fixed)
                assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads.layers))
        assert any((leaf != 0).any() for leaf in jax.tree.leaves(grads.layers))
