"""Negatives give the gradient of log Z where they claim to, and the same check rejects those that do not.

The model is Gaussian, so that the gradient and log Z are known; errors come from independent replicas.
"""

from functools import cache, partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from support import gaussian_energy as gaussian
from support.gaussian_energy import POSITION, law, mean_gradient, theta_at

from ebm.method import NegativeSampler, energy_gap, maximum_likelihood
from ebm.negatives.chains import contrastive_divergence, local_tuning, persistent, short_run
from ebm.negatives.langevin import ula
from ebm.negatives.weighted import importance_sampling, jarzynski
from ebm.objectives.coop_flow import coop_flow
from flowmcmc import Flow, adaptive, freeze, gaussian_mixture, isir, neutra, real_nvp
from flowmcmc.adaptation.frozen import FrozenState
from flowmcmc.adaptation.rounds import RoundInfo
from flowmcmc.base import SamplingAlgorithm

# some 60 comparisons, errors from 48 replicas or more: P(any |t| > 4.5) = 60 * 4.5e-5 = 0.3 %, and the seeds are fixed
THRESHOLD = 4.5
NUM_REPLICAS = 48
MODEL = gaussian.make()
EARLIER, THETA = theta_at([1.5, 1.0], -0.5), theta_at([0.7, -0.4], 0.4)
NO_DATA = jnp.zeros((4, 2))


def start(rng_key):
    """Far away and narrow: no draw of any model here."""
    return 3.0 + 0.3 * jax.random.normal(rng_key, (2,))


def fixed(local, step_size, num_local_steps=4, **options):
    """`freeze` on local steps alone."""
    tuning = local_tuning(step_size, POSITION)
    return partial(
        freeze, local=local, flow=None, tuning=tuning, num_local_steps=num_local_steps, num_flow_steps=0, **options
    )


def flow_assisted(num_components=2, **options):
    flow = gaussian_mixture(POSITION, num_components=num_components)
    return partial(
        adaptive, local=blackjax.mala, flow=flow, num_local_steps=2, num_flow_steps=1, history_size=1024, **options
    )


def in_latent_space():
    """MALA behind a flow with layers of random weights, neither the identity nor anything like the model."""
    flow = real_nvp(POSITION, num_layers=2, hidden=4, num_components=2)
    params = jax.jit(flow.init)(jax.random.key(0), POSITION)
    leaves, treedef = jax.tree.flatten(params.layers)
    keys = list(jax.random.split(jax.random.key(1), len(leaves)))
    move = lambda leaves: [leaf + 0.15 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)]
    leaves = jax.jit(move)(leaves)
    params = params._replace(
        layers=jax.tree.unflatten(treedef, leaves), affine=params.affine._replace(scale=jnp.array([0.7, 1.2]))
    )
    return fixed(neutra(blackjax.mala, flow, params), 0.3)


def normal_flow(loc, scale):
    """N(loc, scale^2), without parameters."""

    def log_prob(params, x):
        return jnp.sum(jax.scipy.stats.norm.logpdf(x, loc, scale))

    def sample_and_log_prob(rng_key, params):
        x = loc + scale * jax.random.normal(rng_key, (2,))
        return x, log_prob(params, x)

    return Flow(lambda rng_key, position: (), sample_and_log_prob, log_prob)


def z_scores(values, truth):
    """(mean - truth) / standard error of the mean over replicas."""
    values = np.asarray(values)
    return (values.mean(axis=0) - np.asarray(truth)) / (values.std(axis=0, ddof=1) / np.sqrt(len(values)))


# --- the gradient --------------------------------------------------------------------------------------------------


def negative_gradient(theta, positions, weights):
    """sum_i w_i grad E(x_i), as the loss has it: the energy gap without its data term."""

    def gap(theta):
        return -energy_gap(MODEL, theta, positions[:1], positions, weights)[0]

    data_term = jax.grad(MODEL.energy)(theta, positions[0])
    return ravel_pytree(jax.tree.map(jnp.add, jax.grad(gap)(theta), data_term))[0]


def gradients_along(negatives, path, num_used, batch=NO_DATA):
    """The gradient at the last `num_used` thetas of a path, averaged; one for each of NUM_REPLICAS replicas."""
    length = path["log_precision"].shape[0]

    def one(rng_key):
        key_init, key_steps = jax.random.split(rng_key)
        first = jax.tree.map(lambda leaf: leaf[0], path)

        def step(state, inputs):
            key, theta = inputs
            positions, weights, state, info = negatives.step(key, state, partial(MODEL.logdensity, theta), batch)
            return state, (negative_gradient(theta, positions, weights), info.ess, info.log_z)

        state = negatives.init(key_init, partial(MODEL.logdensity, first), batch)
        _, (gradients, ess, log_z) = jax.lax.scan(step, state, (jax.random.split(key_steps, length), path))
        return jnp.mean(gradients[-num_used:], axis=0), ess[-1], log_z[-1]

    return jax.jit(jax.vmap(one))


def switched(num_before, num_after):
    """EARLIER for a while, then THETA."""
    return jax.tree.map(lambda a, b: jnp.array([a] * num_before + [b] * num_after), EARLIER, THETA)


def gradient_z(negatives, num_before=10, num_after=200, num_used=150, batch=NO_DATA, seed=0):
    along = gradients_along(negatives, switched(num_before, num_after), num_used, batch)
    gradients = along(jax.random.split(jax.random.key(seed), NUM_REPLICAS))[0]
    return z_scores(gradients, ravel_pytree(mean_gradient(THETA))[0])


def pool_of(make_sampler, **options):
    return persistent(make_sampler, num_chains=32, num_active=16, start=start, **options)


CONSISTENT = {
    "fixed MALA": lambda: pool_of(fixed(blackjax.mala, 0.3)),
    "adapted MALA": lambda: pool_of(
        partial(adaptive, local=blackjax.mala, flow=None, num_local_steps=4, num_flow_steps=0, history_size=1024)
    ),
    "with a flow": lambda: pool_of(flow_assisted()),
    "with a flow, i-SIR": lambda: pool_of(flow_assisted(1, flow_kernel=partial(isir, num_proposals=4))),
    "in latent space": lambda: pool_of(in_latent_space()),
    "several rounds": lambda: pool_of(fixed(blackjax.mala, 0.3, num_local_steps=1), num_rounds=4),
}


@pytest.mark.parametrize("name", CONSISTENT)
def test_persistent_chains_give_the_gradient(name):
    """From far away, and after theta has changed under them."""
    z = gradient_z(CONSISTENT[name]())
    assert np.all(np.abs(z) < THRESHOLD), z


def stale():
    """A sampler that keeps the density it saw first, of EARLIER, however theta changes."""
    make_sampler = fixed(blackjax.mala, 0.3)
    return pool_of(lambda logdensity_fn: make_sampler(partial(MODEL.logdensity, EARLIER)))


def restarted():
    return pool_of(fixed(blackjax.mala, 0.3, num_local_steps=1), restart=start, restart_rate=0.3)


other_data = gaussian.draw(jax.random.key(5), EARLIER, 64)
BIASED = {
    "unadjusted Langevin with large steps": lambda: gradient_z(pool_of(fixed(ula, 0.4))),
    "a stale density": lambda: gradient_z(stale()),
    "restarts": lambda: gradient_z(restarted()),
    "contrastive divergence": lambda: gradient_z(
        contrastive_divergence(fixed(blackjax.mala, 0.1, num_local_steps=1)), batch=other_data
    ),
    "short runs": lambda: gradient_z(short_run(fixed(blackjax.mala, 0.1), start, num_chains=16)),
}


@pytest.mark.parametrize("name", BIASED)
def test_biased_negatives_are_found_out(name):
    z = BIASED[name]()
    assert np.max(np.abs(z)) > 2 * THRESHOLD, z  # with room to spare: no luck in it


# --- weighted draws, and log Z -------------------------------------------------------------------------------------


NUM_SEEDS = 100


@cache
def importance_runs():
    negatives = importance_sampling(normal_flow(0.6, 1.3), (), num_draws=5000)
    along = gradients_along(negatives, switched(0, 1), 1)
    return along(jax.random.split(jax.random.key(1), NUM_SEEDS))


def test_importance_sampling_gives_the_gradient_and_log_z():
    gradients, ess, log_z = importance_runs()
    z = z_scores(gradients, ravel_pytree(mean_gradient(THETA))[0])
    assert np.all(np.abs(z) < THRESHOLD), z
    error = np.sqrt((1 / ess - 1) / 5000)  # delta method
    assert 0.2 < np.min(ess) < np.max(ess) < 0.8
    z = (log_z - gaussian.log_z(THETA)) / error
    assert abs(np.mean(z)) < 0.45 and 0.75 < np.std(z) < 1.3, (np.mean(z), np.std(z))


PATH = jax.tree.map(lambda a, b: jnp.linspace(a, b, 9)[1:], theta_at([0.0, 0.0], -2.0), theta_at([1.5, -1.0], 1.0))
END = jax.tree.map(lambda leaf: leaf[-1], PATH)


def walkers(resample_below, num_walkers=400):
    make_sampler = fixed(blackjax.mala, 0.05, num_local_steps=1)  # too slow to follow
    return jarzynski(make_sampler, MODEL.tilt, num_walkers=num_walkers, resample_below=resample_below)


def equally_weighted(negatives):
    """The same walkers with their weights thrown away."""

    def step(rng_key, state, logdensity_fn, batch):
        positions, weights, state, info = negatives.step(rng_key, state, logdensity_fn, batch)
        return positions, jnp.full_like(weights, 1 / weights.size), state, info

    return NegativeSampler(negatives.init, step)


def along_the_path(negatives):
    return gradients_along(negatives, PATH, 1)(jax.random.split(jax.random.key(2), NUM_SEEDS))


@pytest.mark.parametrize("resample_below", [0.0, 0.7])
def test_jarzynski_gives_the_gradient_and_an_unbiased_z(resample_below):
    # many walkers, since the mean under self-normalised weights is off by O(1 / walkers)
    gradients, ess, log_z = along_the_path(walkers(resample_below, num_walkers=2000))
    z = z_scores(gradients, ravel_pytree(mean_gradient(END))[0])
    assert np.all(np.abs(z) < THRESHOLD), z
    assert np.all(ess < 0.6) if resample_below == 0 else np.all(ess > 0.6)
    z = z_scores(np.exp(log_z - gaussian.log_z(END)), 1.0)
    assert abs(z) < THRESHOLD, z
    assert np.std(log_z) > 0.005  # nor is it a number written down


def test_jarzynski_without_its_weights_is_found_out():
    gradients, _, _ = along_the_path(equally_weighted(walkers(0.0)))
    z = z_scores(gradients, ravel_pytree(mean_gradient(END))[0])
    assert np.max(np.abs(z)) > 2 * THRESHOLD, z


def test_jarzynski_remembers_the_density_that_last_moved_the_walkers():
    negatives = walkers(0.7, num_walkers=50)
    state = jax.jit(lambda key: negatives.init(key, partial(MODEL.logdensity, EARLIER), NO_DATA))(jax.random.key(0))
    np.testing.assert_allclose(state.logdensity, jax.vmap(MODEL.tilt.log_prob)(state.sampler.position), rtol=1e-12)
    step = jax.jit(
        lambda theta, state: negatives.step(jax.random.key(1), state, partial(MODEL.logdensity, theta), ())[2]
    )
    for theta in (EARLIER, THETA):
        before = state.sampler.position
        state = step(theta, state)
        expected = jax.vmap(partial(MODEL.logdensity, theta))(state.sampler.position)
        np.testing.assert_allclose(state.logdensity, expected, rtol=1e-12)
        assert not np.array_equal(before, state.sampler.position)


# --- where chains live ---------------------------------------------------------------------------------------------


def counting(logdensity_fn):
    """A sampler whose step adds 1 to every chain."""

    def init(positions, rng_key=None):
        return FrozenState(positions, ())

    def step(rng_key, state):
        nothing = jnp.zeros(state.position.shape[0])
        moved = FrozenState(state.position + 1.0, ())
        return moved, RoundInfo(*[nothing] * 8)

    return SamplingAlgorithm(init, step)


def identity(rng_key):
    """A whole number of thousands, another one for each chain."""
    return 1000.0 * jax.random.randint(rng_key, (), 1, 10**9)


def updates(negatives, num, batch):
    """Initial state, and what each update returned."""
    step = jax.jit(lambda key, state: negatives.step(key, state, MODEL.logdensity, batch))
    state = first = jax.jit(lambda key: negatives.init(key, MODEL.logdensity, batch))(jax.random.key(0))
    returned = []
    for index in range(num):
        returned.append(step(jax.random.key(index), state))
        state = returned[-1][2]
    return first, returned


@pytest.mark.parametrize("num_rounds", [1, 3])
def test_chains_go_back_where_they_came_from(num_rounds):
    negatives = persistent(counting, num_chains=12, num_active=4, num_rounds=num_rounds, start=identity)
    state, returned = updates(negatives, 40, jnp.zeros(5))
    pool = names = np.asarray(state.pool)
    assert len(set(names)) == 12
    num_active = np.zeros(12)
    for positions, weights, state, _ in returned:
        change = np.asarray(state.pool) - pool
        slots = np.flatnonzero(change)
        np.testing.assert_array_equal(slots // 3, np.arange(4))  # one of each stretch
        np.testing.assert_array_equal(change[slots], num_rounds)
        steps = np.arange(1, num_rounds + 1)[:, None]
        np.testing.assert_array_equal(np.reshape(positions, (num_rounds, 4)), pool[slots] + steps)
        np.testing.assert_allclose(weights, 1 / (4 * num_rounds))
        pool = np.asarray(state.pool)
        num_active += change > 0
    np.testing.assert_array_equal(pool, names + num_rounds * num_active)
    assert num_active.min() > 4 and num_active.max() < 23  # 40 / 3 on average


def test_without_a_start_the_pool_starts_at_data():
    data = 10.0 * jnp.arange(5)
    state, _ = updates(persistent(counting, num_chains=12, num_active=4), 0, data)
    assert set(np.asarray(state.pool)) <= set(np.asarray(data)) and len(set(np.asarray(state.pool))) > 2


@pytest.mark.parametrize(("rate", "low", "high"), [(0.0, 0, 0), (0.5, 10, 30), (1.0, 40, 40)])
def test_restarts(rate, low, high):
    fresh = lambda rng_key: -1000.0 + jax.random.uniform(rng_key)
    negatives = persistent(counting, num_chains=4, num_active=4, start=identity, restart=fresh, restart_rate=rate)
    _, returned = updates(negatives, 10, jnp.zeros(5))
    firsts = [np.asarray(positions) for positions, *_ in returned]
    pools = np.array([state.pool for _, _, state, _ in returned])
    np.testing.assert_array_equal(firsts, pools)
    num_restarted = np.sum((pools > -1000) & (pools < -998))  # moved once since
    assert low <= num_restarted <= high
    if rate == 1:
        assert len(np.unique(pools)) == 40


def test_short_runs_start_anew_and_contrastive_divergence_starts_at_the_batch():
    negatives = short_run(counting, identity, num_chains=6, num_rounds=2)
    _, returned = updates(negatives, 3, jnp.zeros(5))
    positions = np.array([positions for positions, *_ in returned]).reshape(3, 2, 6)
    np.testing.assert_array_equal(positions % 1000, np.broadcast_to([[[1.0], [2.0]]], positions.shape))
    assert len(np.unique(positions)) == 36
    negatives = contrastive_divergence(counting, num_rounds=2)
    state = negatives.init(jax.random.key(0), MODEL.logdensity, jnp.arange(50.0))
    for batch in (100.0 * jnp.arange(3), 7.0 + jnp.arange(4.0)):  # of other sizes than the data
        step = jax.jit(lambda state, batch: negatives.step(jax.random.key(0), state, MODEL.logdensity, batch))
        positions, _, after, _ = step(state, batch)
        np.testing.assert_array_equal(positions, np.concatenate([batch + 1, batch + 2]))
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


STATEFUL = {
    "persistent": lambda: pool_of(
        partial(adaptive, local=blackjax.mala, flow=normal_flow(0.0, 2.0), num_local_steps=2, num_flow_steps=1)
    ),
    "short_run": lambda: short_run(fixed(blackjax.mala, 0.1), start, num_chains=16),
    "jarzynski": lambda: walkers(0.5, num_walkers=16),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_no_state_holds_log_densities(name):
    """Nothing computed from theta can be stale: only `JarzynskiState` keeps it, on purpose and used as such."""
    negatives = STATEFUL[name]()

    @jax.jit
    def begin_and_step(theta):
        logdensity_fn = partial(MODEL.logdensity, theta)
        state = negatives.init(jax.random.key(0), logdensity_fn, NO_DATA)
        positions, _, new, _ = negatives.step(jax.random.key(1), state, logdensity_fn, NO_DATA)
        return state, new, jax.vmap(logdensity_fn)(positions)

    state, new, logdensity = begin_and_step(THETA)
    jax.tree.map(np.testing.assert_array_equal, state, begin_and_step(EARLIER)[0])
    kept = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(new)])
    gaps = np.min(np.abs(kept[None] - np.asarray(logdensity)[:, None]), axis=1)
    assert np.all(gaps < 1e-12) if name == "jarzynski" else not np.any(gaps < 1e-9)


# --- densities that are not finite ---------------------------------------------------------------------------------


def with_wall(value):
    """The model whose energy is `value` beyond x[0] = 1."""
    return MODEL._replace(energy=lambda theta, x: jnp.where(x[0] > 1, value, MODEL.energy(theta, x)))


def with_fixed_flow(logdensity_fn):
    tuning = local_tuning(0.3, POSITION)._replace(params=())
    return freeze(logdensity_fn, blackjax.mala, normal_flow(0.5, 1.0), tuning, num_local_steps=2, num_flow_steps=2)


CORNER = {"num_chains": 32, "num_active": 16, "start": lambda key: -0.5 + 0.2 * jax.random.normal(key, (2,))}
AT_WALLS = {
    "MALA": lambda: persistent(fixed(blackjax.mala, 0.3), **CORNER),
    "unadjusted": lambda: persistent(fixed(ula, 0.3), **CORNER),
    "with a flow": lambda: persistent(with_fixed_flow, **CORNER),
    "started anywhere": lambda: short_run(fixed(blackjax.mala, 0.1), MODEL.tilt.sample, num_chains=64),
    "importance": lambda: importance_sampling(normal_flow(0.5, 1.0), (), num_draws=200),
    "jarzynski": lambda: walkers(0.0, num_walkers=200),
}


def watched(negatives):
    """The same, whose state also holds the negatives it last gave."""

    def step(rng_key, state, logdensity_fn, batch):
        positions, weights, inner, info = negatives.step(rng_key, state[0], logdensity_fn, batch)
        return positions, weights, (inner, positions, weights), info

    return NegativeSampler(lambda *args: (negatives.init(*args), None, None), step)


@pytest.mark.parametrize("name", AT_WALLS)
def test_nothing_that_is_not_finite_reaches_the_gradient(name):
    """Neither positions nor energies; and what is drawn beyond the wall has no weight."""
    negatives = watched(AT_WALLS[name]())
    data = -1.0 + 0.1 * jnp.arange(10.0).reshape(5, 2)

    @jax.jit
    def update(rng_key, state, value):
        method = maximum_likelihood(with_wall(value), negatives)
        return jax.value_and_grad(method.loss, argnums=1, has_aux=True)(rng_key, THETA, (), state, data)

    begin = jax.jit(lambda key, value: negatives.init(key, partial(with_wall(value).logdensity, THETA), data))
    for value in (jnp.nan, jnp.inf):
        state, num_invalid = begin(jax.random.key(0), value), 0
        for index in range(20):
            (loss, (state, info)), gradient = update(jax.random.key(index), (state[0], None, None), value)
            _, positions, weights = state
            assert np.all(np.isfinite(positions))
            assert not np.any((positions[:, 0] > 1) & (weights > 0))
            np.testing.assert_allclose(np.sum(weights), 1.0)
            assert np.isfinite(loss) and all(np.all(np.isfinite(leaf)) for leaf in gradient.values())
            num_invalid += int(info.num_invalid)
        assert num_invalid > 0 or value == jnp.inf  # an impossible draw is not an invalid one


# --- options -------------------------------------------------------------------------------------------------------

mala = fixed(blackjax.mala, 0.1)


@pytest.mark.parametrize(
    ("argument", "build"),
    [
        ("num_active", lambda: persistent(mala, num_chains=10, num_active=4)),
        ("num_active", lambda: persistent(mala, num_active=0)),
        ("num_chains", lambda: persistent(mala, num_chains=0)),
        ("num_rounds", lambda: persistent(mala, num_rounds=0)),
        ("restart_rate", lambda: persistent(mala, restart=start, restart_rate=-0.1)),
        ("restart_rate", lambda: persistent(mala, restart=start, restart_rate=1.1)),
        ("restart_rate", lambda: persistent(mala, restart=start, restart_rate=float("nan"))),
        ("restart is None", lambda: persistent(mala, restart_rate=0.1)),
        ("num_rounds", lambda: contrastive_divergence(mala, num_rounds=0)),
        ("num_chains", lambda: short_run(mala, start, num_chains=0)),
        ("num_rounds", lambda: short_run(mala, start, num_rounds=0)),
        ("energy_penalty", lambda: maximum_likelihood(MODEL, persistent(mala), energy_penalty=-1.0)),
        ("num_draws", lambda: importance_sampling(normal_flow(0.0, 1.0), (), num_draws=0)),
        ("num_walkers", lambda: jarzynski(mala, MODEL.tilt, num_walkers=0)),
        ("num_rounds", lambda: jarzynski(mala, MODEL.tilt, num_rounds=0)),
        ("resample_below", lambda: jarzynski(mala, MODEL.tilt, resample_below=1.5)),
        ("num_chains", lambda: coop_flow(MODEL, normal_flow(0.0, 1.0), (), num_chains=0)),
        ("num_steps", lambda: coop_flow(MODEL, normal_flow(0.0, 1.0), (), num_steps=0)),
    ],
)
def test_bad_options_are_named(argument, build):
    with pytest.raises(ValueError, match=argument):
        build()


def test_the_energy_penalty_is_the_mean_squared_energy_of_both():
    negatives = importance_sampling(normal_flow(0.0, 1.0), (), num_draws=8)
    data = gaussian.draw(jax.random.key(0), EARLIER, 5)
    plain, penalised = (maximum_likelihood(MODEL, negatives, energy_penalty=penalty).loss for penalty in (0.0, 0.1))
    both = jax.jit(lambda *args: (plain(*args)[0], penalised(*args)[0]))
    losses = both(jax.random.key(1), THETA, (), (), data)
    draw = jax.jit(lambda key: negatives.step(key, (), partial(MODEL.logdensity, THETA), data)[:2])
    positions, weights = draw(jax.random.key(1))
    energies = jax.vmap(MODEL.energy, (None, 0))
    squares = jnp.mean(energies(THETA, data) ** 2) + jnp.sum(weights * energies(THETA, positions) ** 2)
    np.testing.assert_allclose(losses[1] - losses[0], 0.1 * squares, rtol=1e-10)


def test_closed_forms_agree_with_numbers():
    """The truth that everything here is compared with."""
    draws = gaussian.draw(jax.random.key(0), THETA, 100_000)
    gradients = jax.jit(jax.vmap(lambda x: ravel_pytree(jax.grad(MODEL.energy)(THETA, x))[0]))(draws)
    assert np.all(np.abs(z_scores(gradients, ravel_pytree(mean_gradient(THETA))[0])) < THRESHOLD)
    np.testing.assert_allclose(ravel_pytree(jax.grad(gaussian.log_z)(THETA))[0], -ravel_pytree(mean_gradient(THETA))[0])
    np.testing.assert_allclose(jax.grad(partial(MODEL.logdensity, THETA))(law(THETA)[0]), 0.0, atol=1e-12)
