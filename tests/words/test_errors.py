"""Every public function with bad input and bad luck: refused with the cause and the mend, or survived with a count.

One row is one case. ``REFUSED``: what is called, the exception, and a part of its message, a regular expression; none
may take as long as a run. ``SURVIVED``: what is called, and what must hold for the result.
"""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.targets import normal as density

import ebm
import flowmcmc
from flowmcmc import Density, freeze, gaussian_mixture, isir, real_nvp, uniform, vmap_chains
from flowmcmc.kernels.jittered import within_modes

QUIET = {"progress_bar": False}
X = jnp.zeros(2)
RNG = np.random.default_rng(0)
STARTS, DATA = RNG.normal(size=(8, 2)), RNG.normal(size=(300, 2))
FLOW = gaussian_mixture(X, num_components=1)  # draws are taken with the components in use: the same program
PARAMS = jax.jit(FLOW.init)(jax.random.key(0), X)
WIDE = flowmcmc.normal(X, scale=5.0)
MALA = vmap_chains(blackjax.mala(density, 0.1))
SMALL = {"flow": FLOW, "num_warmup": 5, "num_samples": 8, "num_local_steps": 1, "num_flow_steps": 1, **QUIET}
SMC = {"num_particles": 50, "num_chains": 8}
MODEL = ebm.Model(*ebm.mlp(X, hidden=(4,)), ebm.normal(X))
THETA = MODEL.init(jax.random.key(0))
LOG_Z = flowmcmc.LogZ(0.0, 0.1, 1.0, 0.0, (), True, (-0.2, 0.2))
LANGEVIN = {"local": blackjax.mala, "flow": None, "tuning": ebm.local_tuning(0.1, X)}
CHAINS = partial(freeze, **LANGEVIN, num_flow_steps=0, num_local_steps=1)
ML = ebm.maximum_likelihood(MODEL, ebm.persistent(CHAINS, num_chains=16, num_active=16))


def sample(seed=0, logdensity_fn=density, positions=STARTS, **options):
    return flowmcmc.sample(seed, logdensity_fn, positions, **SMALL | options)


def fit(model=MODEL, data=DATA, method=ML, **options):
    return ebm.fit(0, model, data, method, **{"num_steps": 4, "batch_size": 32, **QUIET} | options)


@pytest.fixture(scope="module")
def result():
    return sample()


def smc(logdensity_fn=density, start=WIDE, **options):
    return flowmcmc.tempered_smc(0, logdensity_fn, start, **{"num_particles": 50, **QUIET} | options)


REFUSED = {
    # sample: what it is given
    "seed: text": (lambda: sample("a"), TypeError, "rng_key must be"),
    "seed: fraction": (lambda: sample(1.5), TypeError, "rng_key must be"),
    "seed: several keys": (lambda: sample(jax.random.split(jax.random.key(0))), TypeError, "rng_key must be"),
    "seed: too large": (lambda: sample(2**70), ValueError, "too large a seed"),
    "positions: None": (lambda: sample(positions=None), ValueError, "positions is empty"),
    "positions: text": (lambda: sample(positions="here"), TypeError, "made of arrays.*Or pass a density"),
    "positions: complex": (lambda: sample(positions=STARTS + 0j), TypeError, "dtype complex128"),
    "positions: longdouble": (lambda: sample(positions=STARTS.astype(np.longdouble)), TypeError, "float128"),
    "positions: of another shape": (lambda: sample(positions=STARTS[:, 0]), ValueError, r"positions have x: \(\)"),
    "positions: no coordinate": (lambda: sample(positions=STARTS[:, :0]), ValueError, r"positions have x: \(0,\)"),
    "density: text": (lambda: sample(logdensity_fn="normal"), TypeError, "logdensity_fn cannot be traced"),
    "density: None": (lambda: sample(logdensity_fn=None), TypeError, "logdensity_fn cannot be traced"),
    "density: NaN everywhere": (lambda: sample(logdensity_fn=lambda x: jnp.nan * x[0]), ValueError, "not finite at"),
    "start: improper": (
        lambda: sample(positions=Density(lambda x: jnp.nan * x[0], WIDE.sample), **SMC), ValueError, "start.log_prob is"
    ),
    "start: log_prob of a vector": (
        lambda: sample(positions=Density(lambda x: -(x**2), WIDE.sample), **SMC), TypeError, "log_prob must return"
    ),
    "start: draws NaN": (
        lambda: sample(positions=Density(WIDE.log_prob, lambda key: X + jnp.nan), **SMC), ValueError, "NaN or infinite"
    ),
    "start: draws integers": (
        lambda: sample(positions=Density(WIDE.log_prob, lambda key: jnp.zeros(2, int)), **SMC), TypeError, "dtype int64"
    ),
    "num_samples: fraction": (lambda: sample(num_samples=10.5), TypeError, "num_samples must be an integer, got 10.5"),
    "num_samples: text": (lambda: sample(num_samples="10"), TypeError, "num_samples must be an integer, got '10'"),
    "num_samples: none": (lambda: sample(num_samples=0), ValueError, "num_samples must be at least 1, got 0"),
    "num_chains": (lambda: sample(positions=WIDE, num_chains=0), ValueError, "num_chains must be at least 1"),
    "num_particles": (lambda: sample(positions=WIDE, num_particles=0), ValueError, "num_particles must be at least 1"),
    "batch_size: fraction": (lambda: sample(batch_size=2.5), TypeError, "batch_size must be an integer"),
    "flow: text": (lambda: sample(flow="real_nvp"), TypeError, "flow must be a Flow.*got 'real_nvp'"),
    "flow: not called": (lambda: sample(flow=real_nvp), TypeError, r"flow must be a Flow.*got a function \(real_nvp\)"),
    "local: text": (lambda: sample(local="mala"), TypeError, "local must be a function, such as blackjax.mala itself"),
    "local: already built": (lambda: sample(local=blackjax.mala(density, 0.1)), TypeError, "not blackjax.mala"),
    "local: lacks an option": (lambda: sample(local=blackjax.hmc), TypeError, "num_integration_steps=10"),
    "optimizer: text": (lambda: sample(optimizer="adam"), TypeError, r"optax.adam\(1e-3\); got 'adam'"),
    "loss: text": (lambda: sample(loss="kl"), TypeError, "loss must be a function"),
    "target_acceptance_rate: text": (
        lambda: sample(target_acceptance_rate="high"), TypeError, "target_acceptance_rate must be a number, got 'high'"
    ),
    "loss: of nothing": (lambda: flowmcmc.losses.mixture(), ValueError, "at least one"),
    "flow_kernel: text": (lambda: sample(flow_kernel="imh"), TypeError, "flow_kernel must be a function"),
    "checkpoint: not a path": (lambda: sample(checkpoint=3), TypeError, "checkpoint folder must be a path, got 3"),
    "checkpoint: in a file": (lambda: sample(checkpoint=__file__ + "/x"), OSError, "cannot write to this folder"),
    "checkpoint: in a file, from a density": (
        lambda: sample(positions=WIDE, checkpoint=__file__ + "/x", **SMC), OSError, "cannot write.*test_errors.py/x"
    ),
    # the pieces
    "run: no algorithm": (lambda: flowmcmc.run(0, "mala", STARTS, 3), TypeError, "algorithm must be a SamplingAlg"),
    "run: a constructor": (lambda: flowmcmc.run(0, blackjax.mala, STARTS, 3), TypeError, "algorithm must be"),
    "run: no rounds": (lambda: flowmcmc.run(0, MALA, STARTS, 0), ValueError, "num_rounds must be at least 1"),
    "run: half a round": (lambda: flowmcmc.run(0, MALA, STARTS, 2.5), TypeError, "num_rounds must be an integer"),
    "run: text": (lambda: flowmcmc.run(0, MALA, "x", 3), TypeError, "positions must be made of arrays"),
    "run: a number": (lambda: flowmcmc.run(0, MALA, 1.0, 3), ValueError, "first axis of each leaf must count"),
    "vmap_chains": (lambda: vmap_chains(None), TypeError, "algorithm must be"),
    "cycle: no pair": (lambda: flowmcmc.cycle(blackjax.mala(density, 0.1)), TypeError, "must be a pair"),
    "cycle: a constructor": (lambda: flowmcmc.cycle((blackjax.mala, 1)), TypeError, "algorithm must be"),
    "imh": (lambda: flowmcmc.imh(density, "flow", PARAMS), TypeError, "flow must be a Flow"),
    "isir: fraction": (lambda: isir(density, FLOW, PARAMS, num_proposals=2.5), TypeError, "num_proposals"),
    "isir: no proposals": (lambda: isir(density, FLOW, PARAMS, num_proposals=0), ValueError, "num_proposals"),
    "jittered": (lambda: flowmcmc.jittered("mala"), TypeError, "local must be a function"),
    "jittered: text": (lambda: flowmcmc.jittered(blackjax.mala, lowest="low"), TypeError, "lowest must be a number"),
    "within_modes": (lambda: within_modes("mala", FLOW), TypeError, "local must be a function"),
    "neutra": (lambda: flowmcmc.neutra(blackjax.mala, None, None), TypeError, "flow must be a Flow"),
    "adaptive": (lambda: flowmcmc.adaptive(density, blackjax.mala, FLOW, step_size=np.nan), ValueError, "got nan"),
    "adaptive: text": (
        lambda: flowmcmc.adaptive(density, blackjax.mala, FLOW, step_size="0.1"), TypeError, "step_size must be a num"
    ),
    "freeze": (lambda: freeze(density, blackjax.mala, FLOW, None), TypeError, "tuning must be a Tuning"),
    "smc: text": (lambda: smc("x"), TypeError, "logdensity_fn cannot be traced"),
    "smc: NaN everywhere": (lambda: smc(lambda x: jnp.nan * x[0]), ValueError, "not finite at any starting position"),
    "smc: a vector": (lambda: smc(lambda x: -(x**2)), TypeError, "logdensity_fn must return a floating scalar"),
    "smc: target_ess": (lambda: smc(target_ess=None), TypeError, "target_ess must be a number, got None"),
    "smc: fraction": (lambda: smc(num_particles=10.5), TypeError, "num_particles must be an integer"),
    "fit_flow: no flow": (lambda: flowmcmc.fit_flow(0, None, DATA), TypeError, "flow must be a Flow"),
    "fit_flow: another shape": (lambda: flowmcmc.fit_flow(0, FLOW, DATA[:, :1]), ValueError, "positions have x"),
    "fit_flow: steps": (lambda: flowmcmc.fit_flow(0, FLOW, DATA, num_train_steps=-1), ValueError, "num_train_steps"),
    "fit_flow: batch": (lambda: flowmcmc.fit_flow(0, FLOW, DATA, batch_size=0), ValueError, "batch_size"),
    "flow: components": (lambda: gaussian_mixture(X, num_components=2.5), TypeError, "num_components must be an int"),
    "flow: defensive": (lambda: gaussian_mixture(X, defensive="0"), TypeError, "defensive must be a number, got '0'"),
    "flow: text for a position": (lambda: real_nvp("x"), TypeError, "position must be made of arrays"),
    "bent_mixture": (lambda: flowmcmc.bent_mixture(X, num_components=0), ValueError, "num_components must"),
    "funnel_mixture": (lambda: flowmcmc.funnel_mixture(X, defensive=1.0), ValueError, "defensive must"),
    "marginal_mixtures": (lambda: flowmcmc.marginal_mixtures(X, num_components=0), ValueError, "num_components must"),
    "chain_mesh": (lambda: flowmcmc.chain_mesh("cpu"), TypeError, r"devices must be JAX devices.*got 'cpu'"),
    "shard_chains": (lambda: flowmcmc.shard_chains(STARTS, None), TypeError, "mesh must be one of flowmcmc.chain_mesh"),
    "mesh: text": (lambda: sample(mesh="all"), TypeError, "mesh must be one of flowmcmc.chain_mesh"),
    "model_weights": (lambda: flowmcmc.model_weights([1.0, 2.0]), TypeError, "log_zs must be a sequence of LogZ"),
    "model_weights: prior": (lambda: flowmcmc.model_weights([LOG_Z], "even"), TypeError, "prior must be one number"),
    "model_weights: none": (lambda: flowmcmc.model_weights([]), ValueError, "log_zs must be finite"),
    "plot_chains": (lambda: flowmcmc.plot_chains(3), TypeError, "datatree must be a SampleResult or a DataTree"),
    "plot_pairs": (lambda: flowmcmc.plot_pairs(3), TypeError, "datatree must be"),
    "plot_modes": (lambda: flowmcmc.plot_modes(3), TypeError, "datatree must be"),
    "plot_ranks": (lambda: flowmcmc.plot_ranks(3), TypeError, "datatree must be"),
    "plot_warmup": (lambda: flowmcmc.plot_warmup(3), TypeError, "datatree must be"),
    "plot_flow": (lambda: flowmcmc.plot_flow(3), TypeError, "result must be what flowmcmc.sample returned"),
    "plot_report": (lambda: flowmcmc.plot_report(3, "x.html"), TypeError, "datatree must be"),
    "plot_energy": (lambda: ebm.plot_energy(3), TypeError, "trained must be"),
    "spline_flow": (lambda: flowmcmc.spline_flow(X, num_bins=1), ValueError, "num_bins must be at least 2"),
    "spline_flow: bound": (lambda: flowmcmc.spline_flow(X, bound=[1]), TypeError, "bound must be a number, got a list"),
    "constrained": (lambda: flowmcmc.constrained(density, "positive"), TypeError, "constraints must hold"),
    "normal: NaN scale": (lambda: flowmcmc.normal(X, scale=jnp.nan), ValueError, "scale must be finite"),
    "normal: negative scale": (lambda: flowmcmc.normal(X, scale=-1.0), ValueError, "scale must be positive"),
    "normal: NaN": (lambda: flowmcmc.normal(X, loc=jnp.nan), ValueError, "loc must be finite"),
    "normal: text": (lambda: flowmcmc.normal(X, scale="wide"), TypeError, "scale must be a number, or.*'wide'"),
    "normal: scale of another shape": (lambda: flowmcmc.normal(X, scale=jnp.ones(3)), ValueError, r"shape \(3,\)"),
    "normal: infinite": (lambda: flowmcmc.normal(X, loc=jnp.inf), ValueError, "loc must be finite"),
    "normal: integers": (lambda: flowmcmc.normal(jnp.zeros(2, int)), TypeError, "floating arrays, got dtype int64"),
    "normal: nothing": (lambda: flowmcmc.normal({}), ValueError, "position is empty"),
    "uniform: endless": (lambda: uniform(X, low=-jnp.inf, high=0.0), ValueError, "low must be finite"),
    # energy-based models
    "fit: key": (lambda: ebm.fit("a", MODEL, DATA, ML), TypeError, "rng_key must be"),
    "fit: text": (lambda: fit(data="x"), TypeError, "data must be made of arrays"),
    "fit: another shape": (lambda: fit(data=RNG.normal(size=(300, 3))), TypeError, "model cannot take"),
    "fit: method not called": (lambda: fit(method=ebm.nce), TypeError, r"method must be a Method.*\(nce\)"),
    "fit: negatives alone": (lambda: fit(method=ebm.persistent(CHAINS)), TypeError, "got a NegativeSampler"),
    "fit: energy alone": (lambda: fit(ebm.mlp(X)), TypeError, r"model must be ebm.Model\(\*energy, tilt\)"),
    "fit: half an update": (lambda: fit(num_steps=2.5), TypeError, "num_steps must be an integer"),
    "fit: monitor": (lambda: fit(monitor=lambda state: 3), TypeError, "monitor must return a dict"),
    "fit: look_every": (lambda: fit(look_every=0), ValueError, "look_every must be at least 1"),
    "fit: optimizer": (lambda: fit(optimizer="adam"), TypeError, "optimizer must be an optax"),
    "maximum_likelihood": (lambda: ebm.maximum_likelihood(MODEL, None), TypeError, "negatives must be"),
    "persistent": (lambda: ebm.persistent(CHAINS, num_chains=0), ValueError, "num_chains must be at least 1"),
    "contrastive_divergence": (lambda: ebm.contrastive_divergence(CHAINS, num_rounds=0), ValueError, "num_rounds"),
    "short_run": (lambda: ebm.short_run(CHAINS, ebm.normal(X)), TypeError, "start must be a function.*got a Density"),
    "importance_sampling": (lambda: ebm.importance_sampling(FLOW, PARAMS, num_draws=0), ValueError, "num_draws"),
    "jarzynski": (lambda: ebm.jarzynski(CHAINS, ebm.normal(X), num_walkers=0), ValueError, "num_walkers"),
    "nce": (lambda: ebm.nce(MODEL, None), TypeError, "noise must be a Density"),
    "flow_contrastive": (lambda: ebm.flow_contrastive(MODEL, None, None), TypeError, "flow must be a Flow"),
    "coop_flow": (lambda: ebm.coop_flow(MODEL, FLOW, PARAMS, num_steps=0), ValueError, "num_steps"),
    "score_matching": (lambda: ebm.score_matching(None), TypeError, "model must be"),
    "sliced": (lambda: ebm.sliced_score_matching(MODEL, num_projections=0), ValueError, "num_projections"),
    "denoising": (lambda: ebm.denoising_score_matching(MODEL, noise_scale=np.nan), ValueError, "noise_scale"),
    "energy_discrepancy": (lambda: ebm.energy_discrepancy(MODEL, noise_scale=0.0), ValueError, "noise_scale"),
    "mixed": (lambda: ebm.mixed(ebm.normal(X), ebm.normal(X), share=2.0), ValueError, "share must lie"),
    "ula": (lambda: ebm.ula(density, -1.0), ValueError, "step_size must be positive"),
    "gradient_ascent": (lambda: ebm.gradient_ascent(density, np.nan), ValueError, "step_size must be positive"),
    "local_tuning": (lambda: ebm.local_tuning(-1.0, X), ValueError, "step_size must be positive"),
    "tilted": (lambda: ebm.tilted(None, None), TypeError, "flow must be a Flow"),
    "mlp: scale": (lambda: ebm.mlp(X, scale=0.0), ValueError, "scale must be positive"),
    "mlp: integers": (lambda: ebm.mlp(jnp.zeros(2, int)), TypeError, "floating arrays, got dtype int64"),
    "conv": (lambda: ebm.conv(jnp.zeros((4, 4, 1)), channels=()), ValueError, "channels must name"),
    "default_optimizer": (lambda: ebm.default_optimizer(10, -1.0), ValueError, "learning_rate must be positive"),
    "grid: three dimensions": (
        lambda: ebm.grid(ebm.Model(*ebm.mlp(jnp.zeros(3)), ebm.normal(jnp.zeros(3))), THETA, low=-1, high=1),
        TypeError, r"log density cannot be traced by JAX for one position with x: \(2,\)",
    ),
    "mode_weights_importance": (
        lambda: ebm.mode_weights_importance(0, MODEL, THETA, FLOW, PARAMS, np.sign, 2, num_draws=0),
        ValueError, "num_draws must be at least 1",
    ),
    "kl_divergence": (lambda: ebm.kl_divergence(density, DATA[:1], MODEL, THETA, 0.0), ValueError, "at least 2"),
    "mmd: text": (lambda: ebm.mmd("x", DATA, rng_key=0), ValueError, "x must be arrays of numbers.*got 'x'"),
    "mmd: nothing": (lambda: ebm.mmd(DATA[:0], DATA, rng_key=0), ValueError, "4 or more"),
    "c2st: NaN": (lambda: ebm.c2st(0, DATA, DATA * np.nan), ValueError, "y holds 600 numbers that are NaN"),
    "ais: key": (lambda: ebm.ais("a", MODEL, THETA), TypeError, "rng_key must be"),
    "ais: step size": (lambda: ebm.ais(0, MODEL, THETA, step_size=-1.0), ValueError, "step_size must be positive"),
    "reverse_ais": (lambda: ebm.reverse_ais(0, MODEL, THETA, DATA * np.nan), ValueError, "NaN or infinite"),
    "finish": (lambda: ebm.finish(0, None), TypeError, "fit must be what ebm.fit returned"),
    "health": (lambda: ebm.health(None), TypeError, "fit must be what ebm.fit returned"),
    "load": (lambda: ebm.load(__file__, MODEL), FileNotFoundError, "holds no saved model"),
}  # fmt: skip

# what reads a result: the call is given one
REFUSED_OF_RESULT = {
    "more: none": (lambda r: r.more(0), ValueError, "num_samples must be at least 1"),
    "more: text": (lambda r: r.more("5"), TypeError, "num_samples must be an integer"),
    "draw_until: NaN": (lambda r: flowmcmc.draw_until(r, min_ess=np.nan), ValueError, "must be positive, got nan"),
    "draw_until: text": (lambda r: flowmcmc.draw_until(r, max_rhat="1"), TypeError, "max_rhat must be a number"),
    "draw_until: a tree": (lambda r: flowmcmc.draw_until(r.datatree), TypeError, "what flowmcmc.sample returned"),
    "draw_to_disk: a tree": (lambda r: flowmcmc.draw_to_disk(r.datatree, 3, "/x"), TypeError, "what flowmcmc.sample"),
    "summary: a dict": (lambda r: flowmcmc.summary({"x": STARTS}), TypeError, "DataTree with posterior.*got a dict"),
    "summary: no draws": (lambda r: flowmcmc.summary(flowmcmc.to_datatree(None)), ValueError, "draw more"),
    "mode_weights: None": (lambda r: flowmcmc.mode_weights(None), TypeError, "got None"),
    "mode_weights: labels": (lambda r: flowmcmc.mode_weights(r, lambda x: -np.ones(len(x), int)), ValueError, "from 0"),
    "mode_weights: NaN": (lambda r: flowmcmc.mode_weights(r, [[np.nan, 0]]), ValueError, "modes holds NaN"),
    "mode_weights: no centre": (lambda r: flowmcmc.mode_weights(r, np.zeros((0, 2))), ValueError, r"shape \(0, 2\)"),
    "nested_rhat": (lambda r: flowmcmc.nested_rhat(r, 0), ValueError, "num_superchains must be at least 1"),
    "rejections": (lambda r: flowmcmc.rejections(flowmcmc.to_datatree(None)), ValueError, "no group sample_stats"),
    "importance: a tree": (lambda r: flowmcmc.importance(r.datatree), TypeError, "what flowmcmc.sample returned"),
    "importance: no draws": (lambda r: flowmcmc.importance(r, num_draws=0), ValueError, "num_draws"),
    "log_evidence: a tree": (lambda r: flowmcmc.log_evidence(r.datatree), TypeError, "what flowmcmc.sample returned"),
    "log_evidence: no draws": (lambda r: flowmcmc.log_evidence(r, max_draws=0), ValueError, "max_draws"),
    "log_z: fraction": (
        lambda r: flowmcmc.log_z_importance(0, density, FLOW, PARAMS, num_draws=1.5), TypeError, "num_draws must be an"
    ),
}  # fmt: skip


@jax.custom_jvp
def steep(x):
    """A normal whose gradient is (+inf, -inf)."""
    return density(x)


steep.defjvp(lambda x, dx: (density(*x), jnp.inf * dx[0][0] - jnp.inf * dx[0][1]))


def verdict(result) -> str:
    return flowmcmc.summary(result).verdict


def finite(result) -> bool:
    return all(np.isfinite(v).all() for v in result.datatree.posterior.data_vars.values())


def rough(x):
    """NaN, +inf and -inf around a normal."""
    hole = jnp.where(x[0] > 1, jnp.nan, jnp.where(x[1] > 1, jnp.inf, jnp.where(x[0] < -1, -jnp.inf, 0.0)))
    return jnp.where(hole == 0, density(x), hole)


def stays_in(result) -> bool:
    """No draw where `rough` has no density, and the proposals that fell there are counted."""
    x = result.datatree.posterior["x"].values
    invalid = int(result.datatree.sample_stats["num_flow_invalid"].sum())
    return x[..., 0].max() <= 1 and x[..., 1].max() <= 1 and x[..., 0].min() >= -1 and invalid > 0


def scaled(x):
    """A normal in units of 1e-12 and 1e12."""
    return density(x / jnp.array([1e-12, 1e12]))


DENSITIES = {
    "holes": rough,
    "a NaN gradient": lambda x: density(x) + 0 * jnp.sqrt(x[0] - x[0]),
    "an infinite gradient": steep,
    "far away": lambda x: density(x - 1e8),
    "unlike scales": scaled,
    "infinite mass": lambda x: jnp.sum(x**2),
}


def switched(index, x):
    return jax.lax.switch(index, list(DENSITIES.values()), x)


def one_of(name):
    """One of `DENSITIES`. Which one is a number that compiled programs are given: there is one for all of them."""
    return jax.tree_util.Partial(switched, jnp.array(list(DENSITIES).index(name)))


SURVIVED = {
    "a density with holes": (
        lambda: sample(logdensity_fn=one_of("holes"), positions=STARTS / 10, num_warmup=20, num_samples=50),
        stays_in,
    ),
    "a gradient that is NaN": (
        lambda: sample(logdensity_fn=one_of("a NaN gradient")),
        lambda r: finite(r) and "local steps accepted 0.0 %: check the gradient" in verdict(r),
    ),
    "a gradient that is +inf or -inf": (
        lambda: sample(logdensity_fn=one_of("an infinite gradient")),
        lambda r: finite(r) and "local steps accepted 0.0 %: check the gradient" in verdict(r),
    ),
    "fewer chains than dimensions": (
        lambda: sample(positions=RNG.normal(size=(4, 12)), flow=gaussian_mixture(jnp.zeros(12), num_components=1)),
        finite,
    ),
    "starts on a line": (lambda: sample(positions=STARTS[:, :1] * np.ones(2)), finite),
    "far from zero for its width": (
        lambda: sample(logdensity_fn=one_of("far away"), positions=STARTS + 1e8),
        lambda r: finite(r) and abs(r.datatree.posterior["x"].values - 1e8).max() < 10,
    ),
    "all chains at one place": (lambda: sample(positions=np.ones((8, 2))), finite),
    "one chain, one dimension, one draw": (
        lambda: sample(positions=STARTS[:1, 0], flow=gaussian_mixture(0.0, num_components=1), num_samples=1),
        lambda r: r.datatree.posterior["x"].shape == (1, 1),
    ),
    "coordinates of scales 1e-12 and 1e12": (
        lambda: sample(logdensity_fn=one_of("unlike scales"), positions=STARTS * np.array([1e-12, 1e12])),
        lambda r: finite(r) and r.datatree.posterior["x"].std(("chain", "draw"))[1] > 1e11,
    ),
    "a density of infinite mass": (
        lambda: sample(logdensity_fn=one_of("infinite mass"), num_samples=50),
        lambda r: finite(r) and "NOT to be trusted" in verdict(r),
    ),
    "a flow whose fit is NaN": (
        lambda: sample(flow=FLOW._replace(fit=lambda rng_key, params, *_: jax.tree.map(lambda p: p * jnp.nan, params))),
        finite,
    ),
    "a flow that collapses": (
        lambda: sample(flow=FLOW._replace(fit=lambda rng_key, params, *_: jax.tree.map(jnp.zeros_like, params))),
        finite,
    ),
    "training that explodes": (
        lambda: sample(
            flow=real_nvp(X, num_layers=1, hidden=2, num_components=1), local=blackjax.mala, optimizer=optax.sgd(1e300)
        ),
        lambda r: finite(r)
        and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(r.params))
        and r.warmup.info.training.num_skipped.sum() > 0,
    ),
    "draws that are NaN": (
        lambda: flowmcmc.log_z_bridge(0, density, FLOW, PARAMS, np.full((2, 8, 2), np.nan), num_draws=100),
        lambda z: "uncertain" in str(z) and "no draw has a finite log weight" in str(z),
    ),
    "evidence of +inf": (
        lambda: flowmcmc.log_z_importance(0, lambda x: x[0] + jnp.inf, FLOW, PARAMS, num_draws=100),
        lambda z: "zero at every flow draw, or NaN or +inf (100 of 100)" in str(z),
    ),
    "a learning rate of 1e300": (
        lambda: ebm.health(fit(optimizer=optax.sgd(1e300))),
        lambda health: health.num_skipped > 0 and any("lower the learning rate" in p for p in health.problems),
    ),
    "two samples that are one point": (lambda: ebm.c2st(0, np.ones((20, 2)), np.ones((20, 2))), lambda r: r[0] == 0.5),
}  # fmt: skip


def check_refused(call, error, words):
    began = time.perf_counter()
    with pytest.raises(error, match=words):
        call()
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    check_refused(*REFUSED[case])


@pytest.mark.parametrize("case", REFUSED_OF_RESULT)
def test_refused_of_a_result(case, result):
    call, error, words = REFUSED_OF_RESULT[case]
    check_refused(partial(call, result), error, words)


@pytest.mark.filterwarnings("ignore:the gradient of logdensity_fn", "ignore:logdensity_fn is not finite")
@pytest.mark.parametrize("case", SURVIVED)
def test_survived(case):
    call, holds = SURVIVED[case]
    assert holds(call())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_floating_dtype_of_positions_will_do(dtype):
    assert finite(sample(positions=STARTS.astype(dtype)))


SINGLE = """
import jax.numpy as jnp, numpy as np
import flowmcmc

starts = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
options = {"num_warmup": 5, "num_samples": 30, "num_local_steps": 1, "num_flow_steps": 1, "progress_bar": False}
flow = flowmcmc.gaussian_mixture(starts[0], num_components=2)

def draws(logdensity, starts):
    result = flowmcmc.sample(0, logdensity, starts, flow=flow, **options)
    assert result.trace.position.dtype == np.float32 and np.isfinite(result.trace.position).all()
    return result

scale = np.array([1e-12, 1e12], np.float32)
assert draws(lambda x: -0.5 * jnp.sum((x / scale) ** 2), starts * scale).trace.position[..., 1].std() > 1e11
draws(lambda x: -0.5 * jnp.sum((x - 1e4) ** 2), starts + 1e4)
draws(lambda x: -0.5 * jnp.sum(x**2), np.ones((8, 2), np.float32))
options |= {"num_warmup": 20, "num_samples": 100}
hole = draws(lambda x: jnp.where(x[0] > 1, jnp.nan, -0.5 * jnp.sum(x**2)), starts / 10)
assert hole.trace.position[..., 0].max() <= 1 and hole.trace.info.num_flow_invalid.sum() > 0
overflow = draws(lambda x: -jnp.exp(50 * jnp.abs(x[0])) - jnp.sum(x**2), starts / 100)
assert flowmcmc.summary(overflow).verdict
"""


@pytest.mark.slow
def test_single_precision(tmp_path):
    (tmp_path / "single.py").write_text(SINGLE)
    done = subprocess.run([sys.executable, tmp_path / "single.py"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_public_function_is_in_the_table():
    """Names that are called somewhere above; types and what is tested as a part of another are named here."""
    text = Path(__file__).read_text()
    types = {n for m in (flowmcmc, ebm) for n in m.__all__ if isinstance(getattr(m, n), type)}
    missing = {n for m in (flowmcmc, ebm) for n in m.__all__ if f"{n}(" not in text and f".{n}" not in text} - types
    assert missing <= {"grid_mode_weights", "ais_bracket", "trainer"}, missing
