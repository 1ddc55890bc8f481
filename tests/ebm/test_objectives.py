"""Each objective is stationary at the truth, descends towards it and ends there; with the energy upside down it is not.

The model is a Gaussian energy on a normal tilt, so that the density and log Z are known in closed form.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from ebm import (
    denoising_score_matching,
    energy_discrepancy,
    flow_contrastive,
    mixed,
    nce,
    score_matching,
    sliced_score_matching,
)
from ebm.energy import mlp
from ebm.method import Method
from ebm.model import Model
from ebm.objectives.score_matching import raveled_score
from ebm.train import trainer
from flowmcmc import Flow, gaussian_mixture, normal, real_nvp, run, uniform
from flowmcmc.running.run import RunState, keep_info

# some 100 comparisons: P(any |z| > 4.5) = 100 * 6.8e-6 = 0.07 %, and the seeds are fixed
THRESHOLD = 4.5
TILT_SCALE = 2.0
MEAN, VARIANCE = jnp.array([0.7, -0.4]), 0.6  # of the data
NOISE_SCALE = 0.5
POSITION = jnp.zeros(2)


# --- the model -----------------------------------------------------------------------------------------------------


def make(position=POSITION):
    """0.5 exp(log_precision) |x - mean|^2 on a normal tilt; a `sign` of -1 turns the energy upside down."""

    def energy(theta, x):
        squared = jnp.sum((ravel_pytree(x)[0] - theta["mean"]) ** 2)
        return jax.lax.stop_gradient(theta["sign"]) * 0.5 * jnp.exp(theta["log_precision"]) * squared

    def init(rng_key):
        return {"mean": jnp.array([-0.5, 0.8]), "log_precision": jnp.array(1.2), "sign": jnp.array(1.0)}

    return Model(init, energy, normal(position, scale=TILT_SCALE))


def theta_of(mean=MEAN, variance=VARIANCE):
    """Parameters at which energy and tilt together are N(mean, variance)."""
    precision = jnp.array(1 / variance - 1 / TILT_SCALE**2)
    return {"mean": mean / variance / precision, "log_precision": jnp.log(precision), "sign": jnp.array(1.0)}


def log_z_of(theta):
    """log of the integral of N(x; 0, s^2) exp(-E(x)) = (2 pi v)^(d/2) N(mean; 0, s^2 + v), v = exp(-log_precision)."""
    v = jnp.exp(-theta["log_precision"])
    total = TILT_SCALE**2 + v
    return 0.5 * MEAN.size * jnp.log(v / total) - 0.5 * jnp.sum(theta["mean"] ** 2) / total


def draw_data(rng_key, num):
    return MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(rng_key, (num, 2))


def affine_flow():
    """loc + exp(log_scale) z; `unused` is what a mixture's spare components look like."""

    def sample_and_log_prob(rng_key, params):
        scale = jnp.exp(params["log_scale"])
        z = jax.random.normal(rng_key, (2,))
        return params["loc"] + scale * z, jnp.sum(jax.scipy.stats.norm.logpdf(z) - params["log_scale"])

    def log_prob(params, position):
        x = ravel_pytree(position)[0]
        spare = jnp.exp(jax.lax.stop_gradient(params["unused"]))  # zero
        return spare + jnp.sum(jax.scipy.stats.norm.logpdf(x, params["loc"], jnp.exp(params["log_scale"])))

    return Flow(lambda rng_key, position: None, sample_and_log_prob, log_prob)


FLOW_PARAMS = {"loc": jnp.array([0.2, 0.1]), "log_scale": jnp.array(0.1), "unused": jnp.array(-jnp.inf)}

OBJECTIVES = {
    "nce": lambda model: nce(model, normal(POSITION, scale=1.3), noise_ratio=2),
    "nce, mixed": lambda model: nce(model, mixed(normal(POSITION), normal(POSITION, loc=0.5, scale=2.0), share=0.3)),
    "flow": lambda model: flow_contrastive(model, affine_flow(), FLOW_PARAMS),
    "exact": score_matching,
    "sliced": sliced_score_matching,
    "denoising": lambda model: denoising_score_matching(model, noise_scale=NOISE_SCALE),
    "discrepancy": lambda model: energy_discrepancy(model, noise_scale=1.0, num_negatives=4),
}


def truth(name):
    """What the objective is to find: denoising learns the data convolved with the noise."""
    return theta_of(variance=VARIANCE + NOISE_SCALE**2) if name == "denoising" else theta_of()


def extra_at(method, theta):
    """What is learned beside theta, with log Z as it is."""
    extra, _ = method.init(jax.random.key(0), theta, draw_data(jax.random.key(1), 2))
    if isinstance(extra, tuple):
        return (log_z_of(theta), *extra[1:]) if extra else extra
    return log_z_of(theta)


# --- gradients -----------------------------------------------------------------------------------------------------


@cache
def gradients_of(name):
    return compile_gradients(OBJECTIVES[name](make()))


def compile_gradients(method, num_batches=400, batch_size=50):
    """Compiled ``(rng_key, theta, extra) -> gradients`` of independent batches of data."""

    def one(rng_key, theta, extra):
        key_data, key_loss = jax.random.split(rng_key)
        batch = draw_data(key_data, batch_size)
        return jax.grad(lambda learned: method.loss(key_loss, *learned, (), batch)[0])((theta, extra))

    @jax.jit
    def many(rng_key, theta, extra):
        return jax.vmap(one, (0, None, None))(jax.random.split(rng_key, num_batches), theta, extra)

    return many


def z_scores(samples):
    """Mean over its standard error, for each coordinate; zero for one that is always zero."""
    flat = np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(samples)], axis=1)
    error = flat.std(axis=0, ddof=1) / np.sqrt(len(flat))
    return np.divide(flat.mean(axis=0), error, out=np.zeros(flat.shape[1]), where=error > 0)


def gradient_z(name, **changed):
    """z-scores of the gradient at the truth, some of it changed: log precision, mean (2), sign (none), log Z."""
    theta = {**truth(name), **changed}
    extra = extra_at(OBJECTIVES[name](make()), theta)
    theta_grads, extra_grads = gradients_of(name)(jax.random.key(3), theta, extra)
    return z_scores((theta_grads, extra_grads[0] if name == "flow" else extra_grads))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_truth_is_stationary(name):
    assert np.all(np.abs(gradient_z(name)) < THRESHOLD)
    # the same test sees an energy upside down, and 15 percent of precision
    assert np.any(np.abs(gradient_z(name, sign=jnp.array(-1.0))) > 3 * THRESHOLD)
    assert np.any(np.abs(gradient_z(name, log_precision=truth(name)["log_precision"] + 0.15)) > THRESHOLD)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("offset", [-0.5, 0.5])
def test_gradient_points_to_the_truth_from_either_side(name, offset):
    z_precision = gradient_z(name, log_precision=truth(name)["log_precision"] + offset)[0]
    z_mean = gradient_z(name, mean=truth(name)["mean"] + offset)[1:3]
    assert np.sign(offset) * z_precision > THRESHOLD
    assert np.all(np.sign(offset) * z_mean > THRESHOLD)


def test_denoising_does_not_learn_the_data_but_their_convolution():
    assert np.any(np.abs(gradient_z("denoising", **theta_of())) > 3 * THRESHOLD)


@pytest.mark.parametrize(("stabilisation", "num_negatives"), [(1.0, 1), (0.0, 2), (4.0, 2), (0.0, 256)])
def test_energy_discrepancy_is_unbiased_with_one_unit_of_stabilisation_or_many_negatives(stabilisation, num_negatives):
    method = energy_discrepancy(make(), noise_scale=0.7, num_negatives=num_negatives, stabilisation=stabilisation)
    samples = compile_gradients(method, num_batches=100)(jax.random.key(5), theta_of(), ())[0]
    largest = np.max(np.abs(z_scores(samples)))
    assert (largest < THRESHOLD) == (stabilisation == 1 or num_negatives == 256), largest


# --- training ------------------------------------------------------------------------------------------------------


NUM_STEPS = 400


@cache
def algorithm_of(name, descends=True):
    right = OBJECTIVES[name](make())

    def negative_loss(*args):
        value, aux = right.loss(*args)
        return -value, aux

    method = right if descends else Method(right.init, negative_loss)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, NUM_STEPS, 0.02))
    return trainer(make(), method, optimizer, batch_size=128, average_decay=0.9)


def trained(algorithm, sign=1.0):
    """Final state after training on many draws, and the infos; a sign of -1 turns the energy upside down."""
    data = draw_data(jax.random.key(7), 4000)
    state = jax.jit(algorithm.init)(data, jax.random.key(8))
    theta = {**state.theta, "sign": jnp.array(sign)}
    start = RunState(0, state._replace(theta=theta, average=theta))
    end, trace = run(jax.random.key(9), algorithm, start, NUM_STEPS, keep=keep_info, progress_bar=False)
    return end.sampler, trace.info


def error_from(name, theta):
    """Largest error of the log precision and the mean."""
    return max(
        np.max(np.abs(np.asarray(theta[key]) - np.asarray(truth(name)[key]))) for key in ("log_precision", "mean")
    )


@pytest.mark.parametrize("name", ["nce", "flow", "exact", "sliced", "denoising", "discrepancy"])
def test_training_ends_at_the_truth_and_upside_down_it_does_not(name):
    state, info = trained(algorithm_of(name))
    assert error_from(name, make().init(None)) > 0.8  # where it started
    assert error_from(name, state.average) < 0.2
    assert not info.is_skipped.any()
    if name in ("nce", "flow"):
        log_z = state.extra[0] if name == "flow" else state.extra
        assert abs(log_z_of(make().init(None))) > 1.0
        assert abs(log_z - log_z_of(state.theta)) < 0.1
        assert info.method.log_z[0] == 0.0
        assert abs(info.method.log_z[-1] - log_z) < 0.01
    if name == "flow":
        params = state.extra[1]
        assert np.max(np.abs(params["loc"] - MEAN)) < 0.2
        assert abs(params["log_scale"] - 0.5 * np.log(VARIANCE)) < 0.15
        assert np.isneginf(params["unused"])
    state, _ = trained(algorithm_of(name), sign=-1.0)
    assert not error_from(name, state.average) < 0.5


@pytest.mark.parametrize("name", ["nce", "exact"])
def test_training_uphill_does_not_end_there(name):
    state, _ = trained(algorithm_of(name, descends=False))
    assert not error_from(name, state.average) < 0.5


# --- what each computes --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    """A network of random weights, last layer too, on three coordinates; points, and the Hessians' traces there."""
    position = jnp.zeros(3)
    model = Model(*mlp(position, hidden=(8, 8), activation=jax.nn.silu), normal(position, scale=2.0))
    leaves, treedef = jax.tree.flatten(model.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    theta = jax.tree.unflatten(treedef, [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)])
    points = jax.random.normal(jax.random.key(2), (20, 3))
    logdensity = lambda x: model.logdensity(theta, x)
    traces = jax.jit(jax.vmap(lambda x: jnp.trace(jax.hessian(logdensity)(x))))(points)
    scores = jax.jit(jax.vmap(jax.grad(logdensity)))(points)
    return model, theta, points, traces, scores


def test_exact_score_matching_agrees_with_the_hessian(network):
    model, theta, points, traces, scores = network
    loss, _ = jax.jit(score_matching(model).loss)(jax.random.key(0), theta, (), (), points)
    assert np.std(traces) > 0.1
    np.testing.assert_allclose(loss, np.mean(traces + 0.5 * np.sum(scores**2, axis=1)), rtol=1e-10)


@pytest.mark.parametrize("num_projections", [1, 5])
def test_sliced_score_matching_is_exact_in_expectation(network, num_projections):
    model, theta, points, traces, scores = network
    method = sliced_score_matching(model, num_projections=num_projections)
    keys = jax.random.split(jax.random.key(4), 2000)
    sliced = np.asarray(jax.jit(jax.vmap(lambda key: method.loss(key, theta, (), (), points)[0]))(keys))
    error = sliced.std() / np.sqrt(len(sliced))
    assert 0 < error < 0.05
    assert abs(sliced.mean() - np.mean(traces + 0.5 * np.sum(scores**2, axis=1))) < THRESHOLD * error


def test_denoising_score_matching_is_score_matching_of_blurred_data(network):
    """|sigma s + z|^2 / 2 = sigma^2 (trace + |s|^2 / 2) + d / 2 in expectation, at the blurred points."""
    model, theta, points, _, _ = network
    sigma = 0.5
    method = denoising_score_matching(model, noise_scale=sigma)

    def difference(key):
        key_noise, key_loss = jax.random.split(key)
        blurred = points + sigma * jax.random.normal(key_noise, points.shape)
        exact = score_matching(model).loss(key, theta, (), (), blurred)[0]
        return method.loss(key_loss, theta, (), (), points)[0] - (sigma**2 * exact + points.shape[1] / 2)

    samples = np.asarray(jax.jit(jax.vmap(difference))(jax.random.split(jax.random.key(5), 2000)))
    error = samples.std() / np.sqrt(len(samples))
    assert error < 0.06
    assert abs(samples.mean()) < THRESHOLD * error


def test_score_of_a_pytree_comes_raveled():
    model = make({"a": 0.0, "b": jnp.zeros(1)})
    x = {"a": jnp.array(0.3), "b": jnp.array([-1.0])}
    vector, score = raveled_score(model, theta_of(), x)
    np.testing.assert_allclose(score(vector), (MEAN - vector) / VARIANCE, rtol=1e-10)


@pytest.mark.parametrize("name", ["nce", "flow", "exact", "sliced", "denoising", "discrepancy"])
def test_pytree_positions_give_the_loss_of_their_ravel(name):
    tree = {"a": jnp.zeros(()), "b": jnp.zeros(1)}
    batch = draw_data(jax.random.key(0), 10)
    batch_tree = {"a": batch[:, 0], "b": batch[:, 1:]}
    losses = []
    for position, rows in [(POSITION, batch), (tree, batch_tree)]:
        model = make(position)
        if name == "nce":
            method = nce(model, normal(position))
        elif name == "flow":
            flow = gaussian_mixture(position, num_components=2)
            method = flow_contrastive(model, flow, jax.jit(flow.init)(jax.random.key(3), position))
        else:
            method = OBJECTIVES[name](model)
        theta = model.init(None)

        @jax.jit
        def loss(theta, rows):
            extra, state = method.init(jax.random.key(1), theta, rows)  # noqa: B023
            return method.loss(jax.random.key(2), theta, extra, state, rows)[0]  # noqa: B023

        losses.append(loss(theta, rows))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-10)


def test_mixed_noise_is_a_normalised_density_with_exact_draws():
    noise = mixed(normal(jnp.zeros(1), loc=-1.0, scale=0.5), normal(jnp.zeros(1), loc=2.0), share=0.3)
    grid = jnp.linspace(-8, 9, 4001)[:, None]
    density = jnp.exp(jax.jit(jax.vmap(noise.log_prob))(grid))
    np.testing.assert_allclose(jnp.sum(density) * (grid[1] - grid[0])[0], 1.0, rtol=1e-6)
    draws = jax.jit(jax.vmap(noise.sample))(jax.random.split(jax.random.key(0), 20_000))[:, 0]
    for low, high in [(-1.0, 0.0), (1.0, 2.5)]:
        share = jnp.sum(jnp.where((grid >= low) & (grid < high), density[:, None], 0.0)) * (grid[1] - grid[0])[0]
        seen = jnp.mean((draws >= low) & (draws < high))
        assert abs(seen - share) < THRESHOLD * np.sqrt(share * (1 - share) / len(draws))


@pytest.mark.parametrize("name", ["nce", "discrepancy"])
def test_negatives_outside_a_box_count_as_impossible(name):
    """Where the tilt ends the log density is -inf: such a draw adds no NaN to the loss or its gradient."""
    plain = make()
    model = plain._replace(tilt=uniform(POSITION, low=-1.0, high=1.0))
    batch = jax.random.uniform(jax.random.key(0), (20, 2), minval=-0.9, maxval=0.9)
    if name == "nce":
        method = nce(model, normal(POSITION, scale=3.0))
    else:
        method = energy_discrepancy(model, noise_scale=3.0, num_negatives=3)
    theta, (extra, _) = theta_of(), method.init(jax.random.key(1), theta_of(), batch)
    grad = jax.jit(jax.value_and_grad(lambda theta: method.loss(jax.random.key(2), theta, extra, (), batch)[0]))
    value, gradient = grad(theta)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    assert np.any(gradient["mean"] != 0)


# --- the flow as adversary -----------------------------------------------------------------------------------------


def test_flow_gradient_is_that_of_the_negative_loss_and_fitted_parameters_have_none():
    model = make()
    flow = real_nvp(POSITION, num_layers=1, hidden=2, num_components=2)
    params = jax.jit(flow.init)(jax.random.key(0), POSITION)
    params = params._replace(layers=jax.tree.map(lambda leaf: leaf + 0.1, params.layers))
    method = flow_contrastive(model, flow, params)
    batch = draw_data(jax.random.key(1), 30)
    theta = theta_of()
    key = jax.random.key(2)

    def plain(theta, log_z, params):
        """The loss as it is written."""
        draws, log_q = jax.vmap(flow.sample_and_log_prob, (0, None))(jax.random.split(key, 30), params)
        log_p = lambda x: jax.vmap(model.logdensity, (None, 0))(theta, x) - log_z
        on_data = log_p(batch) - jax.vmap(flow.log_prob, (None, 0))(params, batch)
        return -jnp.mean(jax.nn.log_sigmoid(on_data)) - jnp.mean(jax.nn.log_sigmoid(log_q - log_p(draws)))

    @jax.jit
    def both(theta, extra):
        ours = jax.value_and_grad(lambda *learned: method.loss(key, *learned, (), batch)[0], (0, 1))(theta, extra)
        return ours, jax.value_and_grad(plain, (0, 1, 2))(theta, *extra)

    (value, (theta_grad, (log_z_grad, params_grad))), (plain_value, plain_grads) = both(theta, (jnp.array(0.3), params))
    np.testing.assert_allclose(value, plain_value, rtol=1e-10)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)
    jax.tree.map(close, (theta_grad, log_z_grad), plain_grads[:2])
    jax.tree.map(close, params_grad.layers, jax.tree.map(jnp.negative, plain_grads[2].layers))
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(params_grad.layers)) > 1e-3
    assert np.isneginf(params.mixture.log_weights).any()
    for leaf in jax.tree.leaves((params_grad.affine, params_grad.mixture)):
        np.testing.assert_array_equal(leaf, 0.0)


# --- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "build"),
    [
        ("noise_ratio", lambda model: nce(model, model.tilt, noise_ratio=0)),
        ("noise_ratio", lambda model: nce(model, model.tilt, noise_ratio=1.5)),
        ("share", lambda model: mixed(model.tilt, model.tilt, share=1.0)),
        ("params", lambda model: flow_contrastive(model, affine_flow(), {"loc": jnp.zeros(2, int)})),
        ("num_projections", lambda model: sliced_score_matching(model, num_projections=0)),
        ("noise_scale", lambda model: denoising_score_matching(model, noise_scale=0.0)),
        ("noise_scale", lambda model: energy_discrepancy(model, noise_scale=-1.0)),
        ("noise_scale", lambda model: energy_discrepancy(model, noise_scale=float("nan"))),
        ("num_negatives", lambda model: energy_discrepancy(model, noise_scale=1.0, num_negatives=0)),
        ("stabilisation", lambda model: energy_discrepancy(model, noise_scale=1.0, stabilisation=-0.5)),
    ],
)
def test_bad_options_are_named(argument, build):
    with pytest.raises(ValueError, match=argument):
        build(make())
