"""One function for each sampler: blocks of draws (chains, draws, dim), as long as they are asked for.

Each is ``(target, seed, seconds) -> iterator``; `seconds` is the CPU budget of the whole process, for samplers that
must choose a size beforehand. All start from ``target.start``, one wide normal that knows no mode. Settings are the
sampler's defaults or those of its documentation; where there is none to go by, the comment says what was chosen.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def flowmcmc(target, seed: int, seconds: float):
    """Defaults; drawn on in blocks of 1000."""
    import flowmcmc

    result = flowmcmc.sample(seed, target.logdensity_fn, target.start, progress_bar=False)
    yield np.swapaxes(result.trace.position, 0, 1)
    state = result.state
    while True:
        state, trace = flowmcmc.run(result.rng_key, result.algorithm, state, 1000, progress_bar=False)
        yield np.swapaxes(trace.position, 0, 1)


def blackjax_smc(target, seed: int, seconds: float):
    """Adaptive tempered SMC at ESS 0.5 with two HMC moves of 10 leapfrog steps a stage, the mass from the particles'
    variances, the step size following acceptance; 100 particles for each second of the budget; then again from a new
    cloud. Each cloud is one chain."""
    import blackjax
    from blackjax.smc import adaptive_tempered, resampling

    num_particles = int(100 * seconds)

    def log_ratio(x):
        return target.logdensity_fn(x) - target.start.log_prob(x)

    hmc = blackjax.hmc.build_kernel()

    @jax.jit
    def stage(key, state, step_size):
        inverse = jnp.var(state.particles, axis=0)
        kernel = adaptive_tempered.build_kernel(
            target.start.log_prob,
            log_ratio,
            lambda key, s, f: hmc(key, s, f, step_size, inverse, 10),
            blackjax.hmc.init,
            resampling.systematic,
            0.5,
        )
        state, info = kernel(key, state, 2, {})
        rate = jnp.mean(info.update_info.acceptance_rate)
        return state, step_size * jnp.exp(2 * (rate - 0.65))

    draw = jax.jit(lambda key: jax.vmap(target.start.sample)(jax.random.split(key, num_particles)))
    key = jax.random.key(seed)
    while True:
        key, key_start = jax.random.split(key)
        state, step_size = adaptive_tempered.init(draw(key_start)), jnp.asarray(0.2)
        state = jax.tree.map(jnp.asarray, state)
        for index in range(1000):
            is_last = bool(state.tempering_param >= 1.0)
            state, step_size = stage(jax.random.fold_in(key, index), state, step_size)
            if is_last:
                break
        yield np.asarray(state.particles)[None]


def numpyro_nuts(target, seed: int, seconds: float):
    """Four chains, 1000 warm-up steps, drawn on in blocks of 1000."""
    from numpyro.infer import MCMC, NUTS

    starts = jax.vmap(target.start.sample)(jax.random.split(jax.random.key(seed), 4))
    kernel = NUTS(potential_fn=lambda x: -target.logdensity_fn(x))
    sampler = MCMC(
        kernel, num_warmup=1000, num_samples=1000, num_chains=4, chain_method="vectorized", progress_bar=False
    )
    sampler.run(jax.random.key(seed), init_params=starts)
    while True:
        yield np.asarray(sampler.get_samples(group_by_chain=True))
        sampler.post_warmup_state = sampler.last_state
        sampler.run(sampler.post_warmup_state.rng_key)


def flowmc(target, seed: int, seconds: float):
    """RQSpline_MALA_Bundle with its default flow, 100 chains, 20 training loops of 20 local and 20 flow steps and 10
    epochs, and one production loop for each second of the budget, five at least: one run, however long it takes."""
    from flowMC.resource_strategy_bundle.RQSpline_MALA import RQSpline_MALA_Bundle
    from flowMC.Sampler import Sampler

    key_bundle, key_start, key_run = jax.random.split(jax.random.key(seed), 3)
    dim, chains = target.start.sample(key_start).shape[0], 100
    loops = max(5, int(seconds))
    bundle = RQSpline_MALA_Bundle(
        key_bundle,
        chains,
        dim,
        lambda x, data: target.logdensity_fn(x),
        n_local_steps=20,
        n_global_steps=20,
        n_training_loops=20,
        n_production_loops=loops,
        n_epochs=10,
    )
    starts = jax.vmap(target.start.sample)(jax.random.split(key_start, chains))
    sampler = Sampler(
        n_dim=dim, n_chains=chains, rng_key=key_run, resource_strategy_bundles=bundle, checkpoint_interval=0
    )
    sampler.sample(starts, {})
    yield np.asarray(sampler.resources["positions_production"].data)


def blackjax_chees(target, seed: int, seconds: float):
    """ChEES-HMC of BlackJAX: 64 chains, 1000 steps of adaptation, then its dynamic HMC in blocks of 1000."""
    import blackjax
    import optax

    chains = 64
    key_start, key_warmup, key_draw = jax.random.split(jax.random.key(seed), 3)
    starts = jax.vmap(target.start.sample)(jax.random.split(key_start, chains))
    # without its record of every state, which takes 19 GB at d = 64
    warmup = blackjax.chees_adaptation(target.logdensity_fn, chains, adaptation_info_fn=lambda *_: None)
    (state, parameters), _ = warmup.run(key_warmup, starts, 0.1, optax.adam(0.01), num_steps=1000)
    yield from blocks_of(blackjax.dynamic_hmc(target.logdensity_fn, **parameters), state, key_draw)


def blackjax_meads(target, seed: int, seconds: float):
    """MEADS of BlackJAX: 64 chains in its 4 folds, 1000 steps of adaptation, then generalised HMC in blocks of 1000."""
    import blackjax

    chains = 64
    key_start, key_warmup, key_draw = jax.random.split(jax.random.key(seed), 3)
    starts = jax.vmap(target.start.sample)(jax.random.split(key_start, chains))
    (state, parameters), _ = blackjax.meads_adaptation(target.logdensity_fn, chains).run(key_warmup, starts, 1000)
    yield from blocks_of(blackjax.ghmc(target.logdensity_fn, **parameters), state, key_draw)


def blocks_of(algorithm, state, key):
    """Draws of vmapped chains, 1000 at a time."""

    @jax.jit
    def block(key, state):
        def step(state, key):
            state, _ = jax.vmap(algorithm.step)(jax.random.split(key, len(state.logdensity)), state)
            return state, state.position

        return jax.lax.scan(step, state, jax.random.split(key, 1000))

    for index in range(10**6):
        state, draws = block(jax.random.fold_in(key, index), state)
        yield np.swapaxes(np.asarray(draws), 0, 1)


def pocomc(target, seed: int, seconds: float):
    """Preconditioned Monte Carlo with its defaults (512 effective particles, 256 active, 4096 draws), its prior the
    start; then again from a new seed. Each run is one chain."""
    import pocomc as pmc
    from scipy.stats import norm

    dim = target.start.sample(jax.random.key(0)).shape[0]
    # the start is an independent normal, from whose log density at 0 and at a unit vector its scales follow
    at_zero, at_unit = (
        np.asarray(jax.vmap(target.start.log_prob)(rows)) for rows in (jnp.zeros((dim, dim)), jnp.eye(dim))
    )
    scale = 1 / np.sqrt(2 * (at_zero - at_unit))
    prior = pmc.Prior([norm(0, s) for s in scale])
    ratio = jax.jit(jax.vmap(lambda x: target.logdensity_fn(x) - target.start.log_prob(x)))

    def likelihood(x):  # padded to one size, so that it is compiled once
        padded = np.zeros((512, dim), np.float32)
        padded[: len(x)] = x
        return np.asarray(ratio(padded))[: len(x)].astype(float)

    for index in range(10**6):
        sampler = pmc.Sampler(prior, likelihood, vectorize=True, random_state=1000 * index + seed)
        sampler.run(progress=False, n_evidence=0)
        draws = sampler.posterior(resample=True)[0]
        yield draws[np.random.default_rng(index).permutation(len(draws))[:4000]][None]


SAMPLERS: dict[str, Callable] = {
    "flowmcmc": flowmcmc,
    "blackjax_smc": blackjax_smc,
    "blackjax_chees": blackjax_chees,
    "blackjax_meads": blackjax_meads,
    "numpyro_nuts": numpyro_nuts,
    "pocomc": pocomc,
    "flowmc": flowmc,
}
CLOUDS = ("blackjax_smc", "pocomc")  # each block is a run of its own
SIZED = ("blackjax_smc", "flowmc")  # with another budget another run, not a longer one
