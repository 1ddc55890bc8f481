"""Training: in pieces it is unbroken, every epoch sees all data, bad updates are skipped, and it ends at the truth."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.stats import norm
from support import gaussian_energy as gaussian
from support.densities import check_density_in_2d
from support.gaussian_energy import POSITION, law, theta_of

from ebm.energy import conv, mlp
from ebm.fitting import fit
from ebm.method import Method, maximum_likelihood, no_info
from ebm.model import Model, tilted
from ebm.negatives.chains import contrastive_divergence, local_tuning, persistent
from ebm.objectives.coop_flow import coop_flow
from ebm.train import trainer
from flowmcmc import Flow, adaptive, freeze, gaussian_mixture, normal, run, uniform
from flowmcmc.running.run import Trace, keep_info

MODEL = gaussian.make()
MEAN, VARIANCE = jnp.array([0.7, -0.4]), 0.6
DATA = gaussian.draw(jax.random.key(0), theta_of(MEAN, VARIANCE), 1000)
QUIET = {"progress_bar": False}


def chains(local=blackjax.mala, step_size=0.2, num_local_steps=3, position=POSITION, **options):
    tuning = local_tuning(step_size, position)
    make_sampler = partial(
        freeze, local=local, flow=None, tuning=tuning, num_local_steps=num_local_steps, num_flow_steps=0
    )
    return persistent(make_sampler, num_chains=64, num_active=32, **options)


METHOD = maximum_likelihood(MODEL, chains())
OPTIONS = {"optimizer": optax.adam(0.02), "batch_size": 300, "look_every": 8}


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# --- the driver ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unbroken():
    return fit(3, MODEL, DATA, METHOD, num_steps=40, **OPTIONS, **QUIET)


def test_training_in_pieces_is_unbroken_bit_for_bit(unbroken):
    pieces = fit(3, MODEL, DATA, METHOD, num_steps=20, **OPTIONS, **QUIET).more(20, **QUIET)
    assert unbroken.state.round == pieces.state.round == 40 and not pieces.partial
    assert_equal(pieces.state, unbroken.state)
    assert_equal(pieces.info, unbroken.info)
    assert_equal(pieces.theta, unbroken.theta)
    assert unbroken.info.loss.shape == (40,)
    # chains are looked at after 8, 16, ... updates; and where a piece ends
    assert unbroken.chains.shape == (5, 64, 2) and pieces.chains.shape == (6, 64, 2)
    assert_equal(unbroken.chains, pieces.chains[[0, 1, 3, 4, 5]])
    assert_equal(unbroken.chains[-1], unbroken.pool)


def test_the_driver_of_samplers_gives_the_same(unbroken):
    state, trace = run(3, unbroken.algorithm, DATA, 40, keep=keep_info, chunk_size=8, **QUIET)
    assert_equal(state, unbroken.state)
    assert_equal(trace.info, unbroken.info)


def test_interruption_returns_what_there_is(interrupt, monkeypatch, unbroken):
    interrupt(3)
    with pytest.warns(UserWarning, match="interrupted after"):
        part = fit(3, MODEL, DATA, METHOD, num_steps=40, monitor=lambda state: {"seen": state.step}, **OPTIONS, **QUIET)
    monkeypatch.undo()
    done = part.state.round
    assert part.partial and 0 < done < 40 and len(part.info.loss) == done
    assert part.records[-1]["seen"] == part.records[-1]["step"] == done
    whole = part.more(40 - done, **QUIET)
    assert not whole.partial
    assert_equal(whole.state, unbroken.state)
    assert_equal(whole.info, unbroken.info)


def test_interruption_of_the_monitor_loses_no_training(unbroken):
    def monitor(state):
        if state.step == 16 and not had_enough:
            had_enough.append(True)
            raise KeyboardInterrupt
        return {"step_seen": int(state.step), "theta": state.theta}

    had_enough = []
    with pytest.warns(UserWarning, match="interrupted in monitor after 16"):
        part = fit(3, MODEL, DATA, METHOD, num_steps=40, monitor=monitor, **OPTIONS, **QUIET)
    assert part.partial and part.state.round == 16 and len(part.info.loss) == 16
    whole = part.more(24, **QUIET)
    assert_equal(whole.state, unbroken.state)
    assert [record["step_seen"] for record in whole.records] == [8, 24, 32, 40]
    assert_equal(whole.records[-1]["theta"], whole.state.sampler.theta)


def test_what_fit_returns_is_the_average_of_theta():
    """A plain mean at first, then exponential."""
    algorithm = trainer(MODEL, METHOD, OPTIONS["optimizer"], batch_size=300, average_decay=0.9)
    state, thetas = run(3, algorithm, DATA, 40, keep=keep_theta, **QUIET)
    average = np.zeros(2)
    for index, theta in enumerate(thetas["mean"]):
        average += max(0.1, 1 / (index + 1)) * (theta - average)
    np.testing.assert_allclose(state.sampler.average["mean"], average, rtol=1e-10)
    assert np.max(np.abs(average - thetas["mean"][-1])) > 1e-3


def keep_theta(state, info):
    return state.theta


def test_fit_gives_the_average(unbroken):
    assert_equal(unbroken.theta, unbroken.state.sampler.average)
    assert np.any(unbroken.theta["mean"] != unbroken.state.sampler.theta["mean"])


# --- one update ----------------------------------------------------------------------------------------------------


def keep_method(state, info):
    return Trace(None, (state.method, state.theta, state.opt_state, info))


def scripted(loss):
    """A method on one number, whose state is the number of updates and the last batch."""

    def method_loss(rng_key, theta, extra, state, batch):
        return loss(theta, state[0]), ((state[0] + 1, batch), no_info())

    def init(rng_key, theta, data):
        return (), (jnp.array(0), jax.tree.map(lambda leaf: leaf[:5], data))

    return Method(init, method_loss)


ONE_NUMBER = Model(lambda rng_key: jnp.array(1.0), lambda theta, x: theta * jnp.sum(x), normal(jnp.zeros(())))


@pytest.mark.parametrize("size", [15, 17])
def test_an_epoch_sees_every_point_once(size):
    """What is left over at the end of an epoch is left out, each time something else; rows of leaves stay together."""
    data = {"a": jnp.arange(float(size)), "b": jnp.arange(float(size))[:, None] * 10}
    algorithm = trainer(ONE_NUMBER, scripted(lambda theta, step: theta**2), optax.sgd(0.1), batch_size=5)
    _, trace = run(0, algorithm, data, 60, keep=keep_method, **QUIET)
    batches = trace.info[0][1]
    np.testing.assert_array_equal(batches["a"][..., None] * 10, batches["b"])
    epochs = batches["a"].reshape(20, 15)
    assert all(len(set(epoch)) == 15 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 20
    counts = np.bincount(epochs.astype(int).ravel(), minlength=size)
    assert counts.min() == 20 if size == 15 else counts.min() > 10


@pytest.mark.parametrize("bad", ["NaN", "infinite", "gradient"])
def test_an_update_that_is_not_finite_is_skipped(bad):
    def loss(theta, step):
        spoiled = {
            "NaN": lambda t: jnp.nan * t,
            "infinite": lambda t: jnp.inf * t,
            "gradient": lambda t: jnp.sqrt(0 * t),
        }
        return jax.lax.cond(step % 3 == 1, spoiled[bad], lambda t: t**2, theta)

    # Adam, whose moments a bad update would spoil
    algorithm = trainer(ONE_NUMBER, scripted(loss), optax.adam(0.1), batch_size=5)
    state, trace = run(0, algorithm, jnp.arange(15.0), 30, keep=keep_method, **QUIET)
    _, theta, opt_state, info = trace.info
    assert np.isfinite(info.loss).all() == (bad == "gradient")
    np.testing.assert_array_equal(info.is_skipped, np.arange(30) % 3 == 1)
    same = np.diff(np.concatenate([[1.0], theta])) == 0
    np.testing.assert_array_equal(same, info.is_skipped)
    assert np.all(np.isfinite(theta)) and np.isfinite(state.sampler.average)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(opt_state))
    assert opt_state[0].count[-1] == 20


# --- what it learns ------------------------------------------------------------------------------------------------


def with_energy_upside_down(method):
    """The loss with E replaced by -E."""

    def loss(*args):
        value, aux = method.loss(*args)
        return -value, aux

    return Method(method.init, loss)


def is_learned(theta, mean=0.12, variance=0.12):
    """Whether the model has the data's mean and variance, a Gaussian's maximum likelihood."""
    model_mean, model_variance = law(theta)
    data_mean, data_variance = jnp.mean(DATA, axis=0), jnp.mean(jnp.var(DATA, axis=0))
    errors = jnp.max(jnp.abs(model_mean - data_mean)), jnp.abs(jnp.log(model_variance / data_variance))
    return bool((errors[0] < mean) & (errors[1] < variance))


def flow_assisted():
    flow = gaussian_mixture(POSITION, num_components=2)
    make_sampler = partial(
        adaptive, local=blackjax.mala, flow=flow, num_local_steps=2, num_flow_steps=2, history_size=512, refit_every=20
    )
    return persistent(make_sampler, num_chains=128, num_active=64)


SCHEDULE = optax.adam(optax.cosine_decay_schedule(0.05, 400, 0.02))


@pytest.mark.parametrize("descends", [True, False])
def test_flow_assisted_chains_learn_a_gaussian_and_upside_down_they_do_not(descends):
    # plain chains do for the mutant, and are cheaper
    method = maximum_likelihood(MODEL, flow_assisted()) if descends else with_energy_upside_down(METHOD)
    result = fit(0, MODEL, DATA, method, num_steps=400, optimizer=SCHEDULE, average_decay=0.95, look_every=200, **QUIET)
    assert not is_learned(MODEL.init(None))
    assert is_learned(result.theta) == descends, law(result.theta)
    if descends:
        assert not result.info.is_skipped.any()
        assert result.info.method.flow_acceptance_rate[-50:].mean() > 0.7
        assert abs(result.info.loss[-50:].mean()) < 0.1


@pytest.mark.slow
def test_pytrees_are_data():
    position = {"a": jnp.zeros(()), "b": jnp.zeros(1)}
    data = {"a": DATA[:, 0], "b": DATA[:, 1:]}
    model = gaussian.make(position)
    method = maximum_likelihood(model, chains(position=position, step_size=0.3))
    result = fit(0, model, data, method, num_steps=400, optimizer=SCHEDULE, average_decay=0.95, look_every=200, **QUIET)
    assert is_learned(result.theta), law(result.theta)
    assert jax.tree.map(jnp.shape, result.pool) == {"a": (64,), "b": (64, 1)}
    assert jax.tree.map(jnp.shape, result.chains) == {"a": (2, 64), "b": (2, 64, 1)}


@pytest.mark.slow
def test_coop_flow_compares_with_refined_draws_and_its_flow_follows_them():
    """Its flow starts at N(0, 1); the energy is biased by design, so only the negatives' mean is known."""

    def log_prob(params, x):
        return jnp.sum(norm.logpdf(x, params["loc"], jnp.exp(params["log_scale"])))

    def sample_and_log_prob(rng_key, params):
        x = params["loc"] + jnp.exp(params["log_scale"]) * jax.random.normal(rng_key, (2,))
        return x, log_prob(params, x)

    flow = Flow(lambda rng_key, position: None, sample_and_log_prob, log_prob)
    params = {"loc": jnp.zeros(2), "log_scale": jnp.array(0.0)}
    # so many steps that all end where the density is highest
    method = coop_flow(MODEL, flow, params, num_chains=16, num_steps=400, step_size=0.05)
    theta = MODEL.init(None)
    extra, state = method.init(jax.random.key(0), theta, DATA)
    gradient = jax.jit(jax.value_and_grad(lambda t, e: method.loss(jax.random.key(1), t, e, state, DATA)[0], (0, 1)))
    value, (theta_grad, extra_grad) = gradient(theta, extra)
    mode = law(theta)[0]
    energy = lambda theta: jnp.mean(jax.vmap(MODEL.energy, (None, 0))(theta, DATA)) - MODEL.energy(theta, mode)
    np.testing.assert_allclose(value, energy(theta), rtol=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), theta_grad, jax.grad(energy)(theta))
    np.testing.assert_allclose(extra_grad["loc"], -mode, rtol=1e-6)  # of -log N(mode; loc, 1)
    np.testing.assert_allclose(extra_grad["log_scale"], 2 - jnp.sum(mode**2), rtol=1e-6)
    # in training, few steps
    method = coop_flow(MODEL, flow, params, num_chains=128, num_steps=10, step_size=0.02)
    result = fit(0, MODEL, DATA, method, num_steps=400, optimizer=SCHEDULE, look_every=200, **QUIET)
    assert np.all(np.abs(result.state.sampler.extra["loc"] - MEAN) < 0.5 * np.abs(MEAN))
    assert np.all(np.isfinite(result.info.loss)) and abs(result.info.loss[-50:].mean()) < 0.2


@pytest.mark.slow
def test_in_a_box_chains_stay_and_the_energy_is_learned():
    """An exponential on [0, 1], theta x: its mean tells theta."""
    box = uniform(jnp.zeros(1), low=0.0, high=1.0)
    model = Model(lambda rng_key: jnp.array(0.0), lambda theta, x: theta * x[0], box)
    uniforms = jax.random.uniform(jax.random.key(1), (2000, 1))
    data = -jnp.log1p(-uniforms * (1 - jnp.exp(-2.0))) / 2.0  # theta = 2
    method = maximum_likelihood(
        model, chains(step_size=0.1, num_local_steps=5, position=jnp.zeros(1), start=box.sample)
    )
    result = fit(0, model, data, method, num_steps=400, optimizer=SCHEDULE, average_decay=0.95, look_every=20, **QUIET)
    assert np.all((result.chains >= 0) & (result.chains <= 1))
    assert 0.4 < result.info.method.local_acceptance_rate.mean() < 0.9  # walls are met
    assert abs(result.theta - 2.0) < 0.4


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message", "model", "data"),
    [
        (ValueError, r"data\[x\] holds NaN", MODEL, DATA.at[3, 0].set(jnp.nan)),
        (TypeError, r"data\[x\] has dtype int", MODEL, jnp.ones((4, 2), int)),
        (ValueError, r"data\[x\] has shape", MODEL, jnp.ones((0, 2))),
        (ValueError, "data is empty", MODEL, {}),
        (ValueError, r"data\[b\] has 3 points", MODEL, {"a": jnp.ones(4), "b": jnp.ones(3)}),
        (ValueError, "model: .* widen the tilt", gaussian.make(tilt=uniform(POSITION, low=-1.0, high=1.0)), DATA),
        (ValueError, "model: .* NaN in the energy", MODEL._replace(energy=lambda theta, x: jnp.log(x[0])), DATA),
        (ValueError, "model: .* scalar", MODEL._replace(energy=lambda theta, x: x), DATA),
    ],
)
def test_bad_data_and_models_are_named(error, message, model, data):
    with pytest.raises(error, match=message) as caught:
        fit(0, model, data, METHOD, **QUIET)
    assert "chain" not in str(caught.value) and "positions" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("num_steps", {"num_steps": 0}),
        ("look_every", {"look_every": 0}),
        ("batch_size", {"batch_size": 0}),
        ("average_decay", {"average_decay": 1.0}),
        ("average_decay", {"average_decay": -0.1}),
    ],
)
def test_bad_options_are_named(argument, options):
    with pytest.raises(ValueError, match=argument):
        fit(0, MODEL, DATA, METHOD, **options, **QUIET)


def test_a_batch_may_be_all_points_but_not_more():
    def make_sampler(logdensity_fn):
        tuning = local_tuning(0.1, POSITION)
        return freeze(logdensity_fn, blackjax.mala, None, tuning, num_local_steps=1, num_flow_steps=0)

    method = maximum_likelihood(MODEL, contrastive_divergence(make_sampler))
    result = fit(0, MODEL, DATA[:7], method, num_steps=3, batch_size=7, **QUIET)
    assert result.state.round == 3 and result.pool is None and result.chains is None
    assert sorted(np.asarray(result.state.sampler.order)) == list(range(7))
    with pytest.raises(ValueError, match="data holds 7 points, fewer than batch_size = 8"):
        fit(0, MODEL, DATA[:7], method, num_steps=3, batch_size=8, **QUIET)


def test_a_constant_coordinate_is_refused():
    with pytest.raises(ValueError, match=r"data\[x\] is the same number in all \d+ points at \[1\]"):
        fit(0, MODEL, DATA.at[:, 1].set(3.0), METHOD, **QUIET)


# --- energies and tilts --------------------------------------------------------------------------------------------


def test_networks_start_at_the_tilt_and_return_a_scalar():
    image = jax.random.normal(jax.random.key(0), (9, 6, 2))
    tree = {"a": jnp.ones(()), "b": jnp.ones((2, 2))}
    for energy, position in [(conv(image, channels=(3, 4)), image), (mlp(tree, hidden=(4,)), tree)]:
        value_and_grad = jax.jit(jax.value_and_grad(energy.energy))
        theta = jax.jit(energy.init)(jax.random.key(1))
        value, gradient = value_and_grad(theta, position)
        assert value.shape == () and value == 0.0
        # the last layer has a gradient, and once it has moved so have the others
        moved = jax.tree.map(lambda a, g: a - 0.1 * g, theta, gradient)
        value, gradient = value_and_grad(moved, position)
        assert value < 0 and value.dtype == jnp.float64
        assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1, 1), ()])
def test_conv_wants_one_image(shape):
    with pytest.raises(ValueError, match=r"position must be one image .* got shape"):
        conv(jnp.zeros(shape))


@pytest.mark.parametrize("hidden", [(), (4, 0)])
def test_mlp_wants_layers(hidden):
    with pytest.raises(ValueError, match="hidden"):
        mlp(POSITION, hidden=hidden)


def test_an_mlp_sees_standardised_positions():
    energy = mlp(POSITION, hidden=(4,), loc=jnp.array([1.0, 2.0]), scale=3.0)
    plain = mlp(POSITION, hidden=(4,))
    theta = jax.tree.map(lambda leaf: leaf + 0.3, energy.init(jax.random.key(0)))
    x = jnp.array([0.4, -0.7])
    np.testing.assert_allclose(energy.energy(theta, 3 * x + jnp.array([1.0, 2.0])), plain.energy(theta, x), rtol=1e-12)


def test_a_tilt_by_a_flow_is_normalised_and_draws_what_it_says():
    flow = gaussian_mixture(POSITION, num_components=1, defensive=0.0)
    check_density_in_2d(tilted(flow, flow.init(jax.random.key(0), POSITION)), [0.0, 0.0], [1.0, 1.0])
