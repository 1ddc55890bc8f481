"""Every flow is a normalised density with exact draws, whatever its parameters; and starts at its base density."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy import integrate, stats
from support.helpers import TARGETS, THRESHOLD, identity_error, invariance_z, is_exact, push, share_moved

from flowmcmc import (
    Flow,
    bent_mixture,
    funnel_mixture,
    gaussian_mixture,
    imh,
    marginal_mixtures,
    real_nvp,
    spline_flow,
)
from flowmcmc.flows import FlowParams, WarpedParams
from flowmcmc.flows import mixture as base
from flowmcmc.flows.bend import Bend
from flowmcmc.flows.coupling import affine, alternating_masks, coupling
from flowmcmc.flows.marginals import MarginalParams, Marginals
from flowmcmc.flows.spline import rational_quadratic

NVP = partial(real_nvp, num_layers=3, hidden=8)
SPLINE = partial(spline_flow, num_layers=2, hidden=8, num_bins=4)
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
ELEMENTWISE = {"affine": affine(), "spline": rational_quadratic(5, 3.0)}


def build(case):
    constructor, position, num_components, defensive = CASES[case]
    return constructor(position, num_components=num_components, defensive=defensive), position


def perturbed(params, amount, seed=0):
    """Every float leaf moved; of the affine part and the mixture only what keeps them valid."""

    def noise(leaf, index):
        key = jax.random.fold_in(jax.random.key(seed), index)
        return amount * jax.random.normal(key, leaf.shape, leaf.dtype)

    if isinstance(params, WarpedParams):
        return perturbed_warp(params, noise)
    leaves, treedef = jax.tree.flatten(params.layers)
    layers = jax.tree.unflatten(treedef, [leaf + noise(leaf, i) for i, leaf in enumerate(leaves)])
    loc, scale, cholesky = params.affine
    lower = jnp.tril(noise(cholesky, 101), -1)
    moved = params.affine._replace(
        loc=loc + noise(loc, 102), scale=scale * jnp.exp(noise(scale, 103)), cholesky=cholesky + lower
    )
    if isinstance(params, MarginalParams):
        log_weights, means, scales = params.marginals
        log_weights = jax.nn.log_softmax(log_weights + noise(log_weights, 104), axis=1)
        scales = scales * jnp.exp(noise(scales, 106))
        return MarginalParams(moved, Marginals(log_weights, means + 2 * noise(means, 105), scales))
    return FlowParams(moved, perturbed_mixture(params.mixture, noise), layers)


def perturbed_mixture(mixture, noise):
    return base.from_cholesky(
        jax.nn.log_softmax(noise(mixture.log_weights, 104)) if len(mixture.log_weights) > 1 else mixture.log_weights,
        mixture.means + 2 * noise(mixture.means, 105),
        mixture.cholesky + jnp.tril(noise(mixture.cholesky, 106), -1),
    )


def perturbed_warp(params, noise):
    warp = params.warp
    return params._replace(
        loc=params.loc + noise(params.loc, 108),
        scale=params.scale * jnp.exp(noise(params.scale, 109)),
        warp=perturbed_bend(warp, noise) if isinstance(warp, Bend) else perturbed_funnel(warp, noise),
        mixture=perturbed_mixture(params.mixture, noise),
    )


def perturbed_funnel(funnel, noise):
    """The driver keeps its scale and place: it comes first in the triangular part."""
    index = jnp.arange(len(funnel.slopes))
    is_driver = index == funnel.driver
    order = jnp.argsort(jnp.where(is_driver, -1, index))
    back = jnp.argsort(order)
    matrix = funnel.matrix[order][:, order] + jnp.tril(noise(funnel.matrix, 101), -1)
    matrix = matrix[back][:, back]
    return funnel._replace(
        slopes=jnp.where(is_driver, 0.0, funnel.slopes + noise(funnel.slopes, 102)),
        shift=funnel.shift + noise(funnel.shift, 103),
        log_scale=funnel.log_scale + noise(funnel.log_scale, 107),
        matrix=matrix,
        inverse=jnp.linalg.inv(matrix),
    )


def perturbed_bend(bend, noise):
    """Drivers bend those that come after them alone."""
    order = jnp.arange(len(bend.drivers))
    rank = jnp.full(len(bend.shift), len(order)).at[bend.drivers].set(order)
    cholesky = bend.cholesky + jnp.tril(noise(bend.cholesky, 101), -1)
    is_before = order[None] < rank[:, None]
    return bend._replace(
        linear=bend.linear + jnp.where(is_before, noise(bend.linear, 102), 0.0),
        quadratic=bend.quadratic + jnp.where(is_before, noise(bend.quadratic, 107), 0.0),
        shift=bend.shift + noise(bend.shift, 103),
        cholesky=cholesky,
        inverse=jnp.linalg.inv(cholesky),
    )


def bimodal(position, num, seed=0):
    """Two clusters, in every leaf."""
    rng = np.random.default_rng(seed)
    vector, unravel = ravel_pytree(position)
    rows = np.where(rng.random((num, 1)) < 0.4, -2.0, 1.5) + rng.gamma(2.0, 0.5, (num, vector.size))
    return jax.vmap(unravel)(rows.astype(vector.dtype))


def fitted(flow, position):
    positions, heldout, ones = bimodal(position, 500), bimodal(position, 200, 1), jnp.ones
    start = flow.init(jax.random.key(0), position)
    return flow.fit(jax.random.key(1), start, positions, ones(500), heldout, ones(200))


def parameter_sets(flow, position):
    fit, start = fitted(flow, position), flow.init(jax.random.key(0), position)
    both = perturbed(fit, 0.3, 1)
    both = both._replace(affine=fit.affine) if hasattr(fit, "affine") else both
    return {"fitted": fit, "perturbed": perturbed(start, 0.3), "both": both}


def flat(positions):
    return np.asarray(jax.vmap(lambda p: ravel_pytree(p)[0])(positions))


@pytest.mark.parametrize("case", CASES)
def test_draws_and_density_agree_and_are_normalised(case):
    flow, position = build(case)
    defensive = CASES[case][3]
    _, unravel = ravel_pytree(position)
    dim = ravel_pytree(position)[0].size
    keys = jax.random.split(jax.random.key(2), 20_000)
    sample = jax.jit(jax.vmap(flow.sample_and_log_prob, (0, None)))
    log_prob = jax.jit(lambda params, rows: jax.vmap(lambda row: flow.log_prob(params, unravel(row)))(rows))
    for name, params in jax.jit(lambda: parameter_sets(flow, position))().items():
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
            grid = np.linspace(draws.min() - reach, draws.max() + reach, 100_001)
            density = np.exp(np.asarray(log_prob(params, grid[:, None])))
            cdf = integrate.cumulative_simpson(density, x=grid, initial=0)
            assert cdf[-1] == pytest.approx(1, abs=1e-3 if defensive else 1e-6), name  # Student tails
            assert stats.kstest(draws[:, 0], lambda x: np.interp(x, grid, cdf)).pvalue > 1e-4, name  # noqa: B023
        if dim == 2:
            check_grid(partial(log_prob, params), draws)


def check_grid(log_prob, draws):
    """The mass of boxes by quadrature is the share of draws in them."""
    for low, high in ((0.02, 0.98), (0.1, 0.6), (0.4, 0.9)):
        corners = np.quantile(draws, [low, high], axis=0)
        edges = [np.linspace(*corners[:, i], 801) for i in range(2)]
        centres = np.stack(np.meshgrid(*[(e[1:] + e[:-1]) / 2 for e in edges], indexing="ij"), -1).reshape(-1, 2)
        mass = np.exp(np.asarray(log_prob(centres))).sum() * np.prod([e[1] - e[0] for e in edges])
        share = ((draws > corners[0]) & (draws < corners[1])).all(1).mean()
        assert abs(mass - share) < THRESHOLD * np.sqrt(share * (1 - share) / len(draws)) + 2e-3


@pytest.mark.parametrize("case", ["nvp, d=3", "nvp, dict", "spline, d=1", "spline, d=5", "gaussians, d=2"])
def test_starts_at_the_base_density(case):
    flow, position = build(case)
    params = flow.init(jax.random.key(0), position)
    positions, log_q = jax.vmap(flow.sample_and_log_prob, (0, None))(jax.random.split(jax.random.key(1), 100), params)
    rows = flat(positions)
    normal = stats.norm.logpdf(rows).sum(1)
    student = stats.multivariate_t(np.zeros(rows.shape[1]), 4.0 * np.eye(rows.shape[1]), df=3).logpdf(rows)
    defensive = CASES[case][3]
    expected = np.log((1 - defensive) * np.exp(normal) + defensive * np.exp(student))
    assert np.allclose(log_q, expected, rtol=1e-10)


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_coupling_layers_are_inverted_and_have_their_jacobian(kind, dim):
    layers = coupling(dim, ELEMENTWISE[kind], num_layers=4, hidden=8, dtype=jnp.float64)
    start = layers.init(jax.random.key(0))
    leaves, treedef = jax.tree.flatten(start)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    # splines get steep: with more than this the condition number alone spends the digits
    amount = 0.5 if kind == "affine" else 0.3
    moved = jax.tree.unflatten(treedef, [x + amount * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)])

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def look(params, x):
        y, log_det = layers.forward(params, x)
        back, log_det_back = layers.inverse(params, y)
        jacobian = jax.jacfwd(lambda x: layers.forward(params, x)[0])(x)
        return y, log_det, back, log_det_back, jnp.linalg.slogdet(jacobian)

    x = 2 * jax.random.normal(jax.random.key(2), (200, dim))
    y, log_det, back, log_det_back, exact = look(moved, x)
    assert np.abs(y - x).max() > 0.5
    assert np.allclose(back, x, atol=1e-9)
    assert (exact.sign == 1).all()
    assert np.allclose(log_det, exact.logabsdet, atol=1e-9)
    assert np.allclose(log_det, -log_det_back, atol=1e-9)
    y, log_det, *_ = look(start, x)
    assert np.allclose(y, x, atol=1e-12)
    assert np.allclose(log_det, 0, atol=1e-12)


def test_two_layers_transform_each_coordinate():
    for dim in (1, 2, 3, 5):
        layers = coupling(dim, affine(), num_layers=2, hidden=4, dtype=jnp.float64)
        params = jax.tree.map(lambda leaf: leaf + 0.3, layers.init(jax.random.key(0)))
        y, _ = layers.forward(params, jnp.zeros(dim))
        assert (jnp.abs(y) > 1e-3).all()


@pytest.mark.parametrize("dim", [2, 3, 5, 8, 33])
def test_two_layers_for_each_binary_digit_let_every_coordinate_act_on_every_other(dim):
    is_kept = np.asarray(alternating_masks(dim, 2 * (dim - 1).bit_length()))
    acts = (is_kept[:, :, None] & ~is_kept[:, None, :]).any(0)
    assert np.array_equal(acts, ~np.eye(dim, dtype=bool))


def test_log_scales_are_bounded():
    numbers = 100 * jax.random.normal(jax.random.key(0), (500, 14))
    x = jnp.linspace(-4, 4, 500)
    _, log_derivative = jax.vmap(ELEMENTWISE["affine"].forward)(numbers[:, :2], x)
    assert np.abs(log_derivative).max() <= 3
    # shares of at least 1e-2 / 5 and slopes of at least 1e-2: finite for numbers of any size
    for direction in (ELEMENTWISE["spline"].forward, ELEMENTWISE["spline"].inverse):
        y, log_derivative = jax.vmap(direction)(numbers, x)
        assert np.isfinite(y).all()
        assert np.abs(log_derivative).max() < 20


def test_the_spline_is_monotone_joins_smoothly_and_is_the_identity_outside():
    spline = rational_quadratic(5, 3.0)
    numbers = 2 * jax.random.normal(jax.random.key(0), (20, spline.num_numbers))
    x = jnp.linspace(-5, 5, 4001)
    forward = jax.jit(jax.vmap(jax.vmap(spline.forward, (None, 0)), (0, None)))
    y, log_derivative = forward(numbers, x)
    assert (jnp.diff(y, axis=1) > 0).all()
    outside = np.abs(x) >= 3
    assert np.array_equal(y[:, outside], np.broadcast_to(x[outside], (20, outside.sum())))
    assert (log_derivative[:, outside] == 0).all()
    ends = forward(numbers, jnp.array([-3 + 1e-9, 3 - 1e-9]))
    assert np.allclose(ends[0], [[-3, 3]], atol=1e-8)
    assert np.allclose(ends[1], 0, atol=1e-5)
    # the derivative is that of the curve, also across knots
    slope = np.gradient(np.asarray(y), np.asarray(x), axis=1)
    assert np.median(np.abs(slope - np.exp(log_derivative))) < 1e-4


TRAINED = {"nvp": partial(real_nvp, num_layers=4, hidden=8), "spline": partial(spline_flow, num_layers=4, hidden=8)}


@pytest.mark.parametrize("num_components", [1, 4])
@pytest.mark.parametrize("kind", TRAINED)
def test_float32_passes_agree_after_training(kind, num_components):
    """What the acceptance ratio can tell: an error e in log q changes a probability by the factor exp(e).

    One part in a hundred is asked for wherever the target has any mass. In the empty tails, where every proposal is
    rejected, extrapolating splines are steep and lose more, in at most one draw in two hundred.
    """
    position = jnp.zeros(2, jnp.float32)
    flow = TRAINED[kind](position, num_components=num_components)
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 2000)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.choice([1.0, 3.0], (2000, 1))
    positions = jnp.asarray(ring + 0.1 * rng.standard_normal((2000, 2)), jnp.float32)
    ones = jnp.ones(2000, jnp.float32)

    @jax.jit
    def train():
        params = flow.init(jax.random.key(0), position)
        params = flow.fit(jax.random.key(1), params, positions, ones, positions, ones)
        optimizer = optax.adam(1e-2)

        def loss(params):
            return -jnp.mean(jax.vmap(flow.log_prob, (None, 0))(params, positions[:500]))

        def step(carry, _):
            params, opt_state = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), value

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), None, 200)
        return params, losses

    params, losses = train()
    assert losses[-1] < losses[0] - 0.05
    keys = jax.random.split(jax.random.key(2), 5000)
    draws, log_q = jax.vmap(flow.sample_and_log_prob, (0, None))(keys, params)
    again = jax.vmap(flow.log_prob, (None, 0))(params, draws)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, losses, draws, log_q, again))} == {jnp.dtype("float32")}
    error = np.abs(log_q - again)
    assert np.median(error) < 1e-5
    assert np.quantile(error, 0.99) < 1e-3
    assert np.mean(error > 1e-2) < (5e-3 if kind == "spline" else 1e-9)
    assert error[np.linalg.norm(draws, axis=1) < 3.5].max() < 1e-2


def test_scales_far_apart_are_handled_by_fit():
    """1e6 and 1e-6 in one position, in single precision too."""
    for dtype in (jnp.float32, jnp.float64):
        position = {"large": jnp.zeros((), dtype), "small": jnp.zeros(2, dtype)}
        rng = np.random.default_rng(0)
        positions = {
            "large": jnp.asarray(3e6 + 1e6 * rng.standard_normal(1000), dtype),
            "small": jnp.asarray(1e-6 * rng.standard_normal((1000, 2)), dtype),
        }
        flow = real_nvp(position, num_layers=2, hidden=8, num_components=2, defensive=0.0)
        ones = jnp.ones(1000, dtype)
        params = jax.jit(flow.fit)(
            jax.random.key(0), flow.init(jax.random.key(1), position), positions, ones, positions, ones
        )
        draws, log_q = jax.vmap(flow.sample_and_log_prob, (0, None))(jax.random.split(jax.random.key(2), 2000), params)
        assert np.std(draws["large"]) == pytest.approx(1e6, rel=0.1)
        assert np.mean(draws["large"]) == pytest.approx(3e6, rel=0.1)
        assert np.std(draws["small"], axis=0) == pytest.approx([1e-6, 1e-6], rel=0.1)
        log_p = stats.norm.logpdf(draws["large"], 3e6, 1e6) + stats.norm.logpdf(draws["small"], 0, 1e-6).sum(1)
        assert np.isfinite(log_q).all()
        assert np.abs(log_p - log_q).mean() < 0.2
        again = jax.vmap(flow.log_prob, (None, 0))(params, draws)
        assert np.abs(log_q - again).max() < 1e-4


@pytest.mark.parametrize("case", ["nvp, dict", "spline, d=5"])
def test_gradients_reach_the_layers_alone_and_are_finite(case):
    flow, position = build(case)
    params = jax.jit(lambda: fitted(flow, position))()

    @jax.jit
    def gradients(params, row, key):
        return (
            jax.grad(flow.log_prob)(params, row),
            jax.grad(lambda p: flow.sample_and_log_prob(key, p)[1])(params),
            jax.grad(lambda p: jnp.sum(ravel_pytree(flow.sample_and_log_prob(key, p)[0])[0] ** 2))(params),
        )

    rows = bimodal(position, 5, 3)
    far = jax.tree.map(lambda x: 1e4 * x, rows)
    for positions in (rows, far):
        for i in range(5):
            row = jax.tree.map(lambda x: x[i], positions)  # noqa: B023
            for grads in gradients(params, row, jax.random.key(i)):
                fixed = jax.tree.leaves((grads.affine, grads.mixture))
                assert all((leaf == 0).all() for leaf in fixed)
                assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads.layers))
        assert any((leaf != 0).any() for leaf in jax.tree.leaves(grads.layers))


@pytest.mark.parametrize("constructor", [gaussian_mixture, real_nvp, spline_flow])
@pytest.mark.parametrize(
    "options", [{"num_components": 0}, {"defensive": -0.1}, {"defensive": 1.0}, {"num_layers": 0}, {"hidden": 0}]
)
def test_options_out_of_range_raise_with_their_name(constructor, options):
    if constructor is gaussian_mixture and not {"num_components", "defensive"} & set(options):
        pytest.skip("has no such option")
    with pytest.raises(ValueError, match=next(iter(options))):
        constructor(jnp.zeros(2), **options)


@pytest.mark.parametrize("options", [{"num_bins": 0}, {"bound": 0.0}, {"bound": -2.0}])
def test_spline_options_out_of_range_raise_with_their_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        spline_flow(jnp.zeros(2), **options)


def test_positions_that_are_not_floating_raise_with_their_name():
    with pytest.raises(TypeError, match=r"\['n'\].*int"):
        real_nvp({"x": jnp.zeros(2), "n": jnp.zeros(2, int)})
    with pytest.raises(ValueError, match="empty"):
        real_nvp({"x": jnp.zeros(0)})


@pytest.fixture(scope="module")
def flowjax_flow():
    """Another library's flow behind the three functions."""
    eqx = pytest.importorskip("equinox")
    distributions, flows = pytest.importorskip("flowjax.distributions"), pytest.importorskip("flowjax.flows")
    paramax = pytest.importorskip("paramax")
    whole = flows.coupling_flow(
        jax.random.key(0), base_dist=distributions.Normal(jnp.zeros(2)), flow_layers=2, nn_width=8, invert=False
    )
    _, static = eqx.partition(whole, eqx.is_inexact_array)

    def init(key, position):
        leaves, treedef = jax.tree.flatten(eqx.partition(whole, eqx.is_inexact_array)[0])
        keys = jax.random.split(key, len(leaves))
        noisy = [x + 0.3 * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys)]
        return jax.tree.unflatten(treedef, noisy)

    def whole_again(params):
        return paramax.unwrap(eqx.combine(params, static))

    return Flow(
        init,
        lambda key, params: whole_again(params).sample_and_log_prob(key),
        lambda params, x: whole_again(params).log_prob(x),
    )


def test_another_librarys_flow_fits(flowjax_flow):
    target = TARGETS["mixture"]
    params = flowjax_flow.init(jax.random.key(1), target.position)
    before = target.draws(61)
    assert identity_error(target.logdensity, flowjax_flow, params, before[:500]).max() < 1e-10
    after = push(lambda p: imh(target.logdensity, flowjax_flow, p), 3)(jax.random.key(62), params, before)
    assert is_exact(invariance_z(target.functions, before, after))
    assert share_moved(before, after) > 0.1


def wells(key):
    """Three independent pairs of wells: 0.3 at -2, 0.7 at +2, each N(., 0.3^2)."""
    key_side, key_normal = jax.random.split(key)
    side = jnp.where(jax.random.bernoulli(key_side, 0.7, (3,)), 2.0, -2.0)
    return side + 0.3 * jax.random.normal(key_normal, (3,))


def fit_of(flow, rows):
    train, heldout = rows[:3000], rows[3000:]
    start = flow.init(jax.random.key(0), rows[0])
    return jax.jit(flow.fit)(jax.random.key(1), start, train, jnp.ones(len(train)), heldout, jnp.ones(len(heldout)))


def test_marginals_list_the_wells_and_leave_independent_coordinates_alone():
    rows = jax.vmap(wells)(jax.random.split(jax.random.key(3), 4000))
    flow = marginal_mixtures(rows[0])
    params = fit_of(flow, rows)
    assert np.array_equal(params.affine.cholesky, np.eye(3))
    fresh = jax.vmap(wells)(jax.random.split(jax.random.key(4), 4000))
    truth = np.logaddexp(
        np.log(0.3) + stats.norm(-2, 0.3).logpdf(fresh), np.log(0.7) + stats.norm(2, 0.3).logpdf(fresh)
    )
    divergence = truth.sum(1).mean() - float(jnp.mean(jax.vmap(flow.log_prob, (None, 0))(params, fresh)))
    assert 0 < divergence - -np.log(0.95) < 0.03  # nats, beside the defensive part
    # a correlated pair is another matter
    mixed = rows @ jnp.array([[1.0, 0.9, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 1.0]])
    assert abs(fit_of(flow, mixed).affine.cholesky[1, 0]) > 0.8


def test_marginals_of_a_constant_coordinate_and_of_few_states_are_usable():
    rows = jnp.concatenate([jnp.zeros((40, 1)), jax.random.normal(jax.random.key(0), (40, 1))], axis=1)
    flow = marginal_mixtures(rows[0])
    params = jax.jit(flow.fit)(jax.random.key(1), None, rows, (jnp.arange(40) < 7).astype(float), rows, jnp.ones(40))
    assert np.isfinite(jax.vmap(flow.log_prob, (None, 0))(params, rows)).all()
