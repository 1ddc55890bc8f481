# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # I already have a flow, or a kernel. Can I use it?
#
# Yes: a local kernel is any BlackJAX algorithm, a flow is any density with three functions, and the parts of flowmcmc
# can be put together by hand. This notebook does each in turn, and shows how to check that an own flow is right; an
# error there gives wrong draws without any message.
#
# It needs matplotlib (the `demo` extra) and, for one section, flowjax: `pip install 'flowmcmc[demo]' flowjax`.

# %%
from functools import partial

import arviz as az
import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flowjax.bijections import Affine, RationalQuadraticSpline
from flowjax.distributions import Normal, Transformed
from flowjax.flows import coupling_flow
from jax.scipy.stats import norm

import flowmcmc
from flowmcmc.losses import pool_forward_kl

# %% [markdown]
# The density is that of the first notebook, a curved ridge with weight 2/3 and a round hill with weight 1/3. This time
# we also write exact draws; the checks at the end need them.


# %%
def logdensity(x):
    ridge = norm.logpdf(x[0], 0.0, 1.5) + norm.logpdf(x[1], 0.5 * x[0] ** 2, 0.4)
    hill = norm.logpdf(x[0], 0.0, 0.6) + norm.logpdf(x[1], -5.0, 0.6)
    return jnp.logaddexp(jnp.log(2 / 3) + ridge, jnp.log(1 / 3) + hill)


def exact_draw(rng_key):
    key_mode, key_x = jax.random.split(rng_key)
    z = jax.random.normal(key_x, (2,))
    ridge = jnp.array([1.5 * z[0], 0.5 * (1.5 * z[0]) ** 2 + 0.4 * z[1]])
    hill = jnp.array([0.6 * z[0], -5.0 + 0.6 * z[1]])
    return jnp.where(jax.random.uniform(key_mode) < 2 / 3, ridge, hill)


def which_mode(draws):
    """0 for the ridge, 1 for the hill."""
    return (draws[:, 1] < -2.5).astype(int)


def one_line(name, tree):
    modes, rates = flowmcmc.mode_weights(tree, modes=which_mode), flowmcmc.rejections(tree)
    rhat, ess = float(az.rhat(tree)["x"].max()), float(az.ess(tree)["x"].min())
    accepted = ", ".join(f"{n.removesuffix('_acceptance_rate')} {float(rates[n].mean()):.2f}" for n in list(rates)[:2])
    print(f"{name}: hill {modes.weights[1]:.4f} +- {modes.mcse[1]:.4f} (truth 0.3333)")
    print(f"    r-hat {rhat:.3f}, ESS {ess:.0f}, accepted: {accepted}")


starts = 5.0 * jax.random.normal(jax.random.key(1), (100, 2))
options = dict(num_warmup=100, num_samples=300, progress_bar=False)

# %% [markdown]
# ## Your local kernel
#
# `local` is called as `local(logdensity_fn, step_size)` and returns a BlackJAX algorithm. `blackjax.mala` fits as it
# is; other arguments are bound with `functools.partial`. A kernel that asks for an `inverse_mass_matrix` is given ones,
# because flowmcmc already scales every coordinate by the spread of the chains; bind your own if you want another. The
# step size is adapted to `target_acceptance_rate`.

# %%
mixture = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=6)

hmc = partial(blackjax.hmc, num_integration_steps=8)
result = flowmcmc.sample(
    0, logdensity, starts, local=hmc, num_local_steps=2, flow=mixture, target_acceptance_rate=0.8, **options
)
one_line("HMC, 8 leapfrog steps", result.datatree)
print(f"    step size {result.tuning.step_size:.3f} in units of {result.tuning.scale}")

# %%
result = flowmcmc.sample(
    0,
    logdensity,
    starts,
    local=blackjax.nuts,
    num_local_steps=1,
    flow=mixture,
    target_acceptance_rate=0.8,
    **options,
)
one_line("NUTS", result.datatree)
print(f"    step size {result.tuning.step_size:.3f} in units of {result.tuning.scale}")

# %% [markdown]
# ## Another flow kernel: i-SIR
#
# `imh` offers one proposal at a time. `isir` draws a pool of them and chooses one, or stays. That costs as many
# evaluations of the density as there are proposals, which run side by side, and helps when a single proposal is rarely
# accepted. The pool can train the flow too: `pool_forward_kl` uses every candidate with its weight.

# %%
result = flowmcmc.sample(
    0,
    logdensity,
    starts,
    flow=flowmcmc.real_nvp(jnp.zeros(2), num_layers=4, num_components=6),
    flow_kernel=partial(flowmcmc.isir, num_proposals=8),
    loss=pool_forward_kl,
    num_flow_steps=1,
    **options,
)
one_line("i-SIR, 8 proposals a step", result.datatree)

# %% [markdown]
# ## Your own flow: three functions
#
# A `Flow` is a named tuple of functions on **one** position:
#
# - `init(rng_key, position) -> params`, any pytree of arrays,
# - `sample_and_log_prob(rng_key, params) -> (position, log_prob)`,
# - `log_prob(params, position) -> scalar`.
#
# The smallest useful one is a normal with a learned location and scale for each coordinate:


# %%
def independent_normals(dim):
    def init(rng_key, position):
        return {"loc": jnp.zeros(dim), "log_scale": jnp.full(dim, 1.0)}

    def log_prob(params, position):
        return jnp.sum(norm.logpdf(position, params["loc"], jnp.exp(params["log_scale"])))

    def sample_and_log_prob(rng_key, params):
        position = params["loc"] + jnp.exp(params["log_scale"]) * jax.random.normal(rng_key, (dim,))
        return position, log_prob(params, position)

    return flowmcmc.Flow(init, sample_and_log_prob, log_prob)


normals = independent_normals(2)

# %% [markdown]
# ## A flow from flowjax
#
# A flow object of flowjax holds arrays (to be trained) and structure. Split the two with equinox, keep the structure in
# a closure, and hand out the arrays as `params`. The same pattern serves any library whose flow is a pytree.


# %%
def from_flowjax(make):
    """`make(rng_key)` builds a flowjax distribution."""
    _, structure = eqx.partition(make(jax.random.key(0)), eqx.is_inexact_array)

    def init(rng_key, position):
        return eqx.filter(make(rng_key), eqx.is_inexact_array)

    def sample_and_log_prob(rng_key, params):
        return eqx.combine(params, structure).sample_and_log_prob(rng_key)

    def log_prob(params, position):
        return eqx.combine(params, structure).log_prob(position)

    return flowmcmc.Flow(init, sample_and_log_prob, log_prob)


def make_spline(rng_key):
    spline = coupling_flow(
        rng_key,
        base_dist=Normal(jnp.zeros(2)),
        transformer=RationalQuadraticSpline(knots=8, interval=4),
        flow_layers=4,
        nn_width=32,
    )
    return Transformed(spline, Affine(jnp.zeros(2), jnp.array([2.0, 4.0])))


plain_spline = from_flowjax(make_spline)

# %% [markdown]
# The outer `Affine` matters: splines bend only the interval from −4 to 4, so the flow should see numbers of order one.
# Here we put in a rough scale of each coordinate. (flowmcmc's own flows do this by the optional fourth function of
# `Flow`, `fit`, which sets in closed form what gradients need not learn.)
#
# One more thing that flowmcmc's own flows have: a broad part that reaches everywhere, so that no place has a flow
# density far below that of the target. A wrapper gives it to any flow:


# %%
def with_broad_part(flow, share=0.05, scale=8.0):
    """A mixture: `flow`, and with probability `share` independent normals of standard deviation `scale`."""

    def log_prob(params, position):
        broad = jnp.sum(norm.logpdf(position, 0.0, scale))
        return jnp.logaddexp(jnp.log1p(-share) + flow.log_prob(params, position), jnp.log(share) + broad)

    def sample_and_log_prob(rng_key, params):
        key_flow, key_broad, key_which = jax.random.split(rng_key, 3)
        position, _ = flow.sample_and_log_prob(key_flow, params)
        broad = scale * jax.random.normal(key_broad, position.shape)
        position = jnp.where(jax.random.uniform(key_which) < share, broad, position)
        return position, log_prob(params, position)

    return flowmcmc.Flow(flow.init, sample_and_log_prob, log_prob)


flowjax_spline = with_broad_part(plain_spline)

# %%
with_spline = flowmcmc.sample(0, logdensity, starts, flow=flowjax_spline, **(options | {"num_warmup": 200}))
one_line("flowjax spline flow", with_spline.datatree)

# %% [markdown]
# What the broad part does shows in the tails: the largest log weight, log p − log q, over 10,000 exact draws of the
# density. A chain that gets to such a place waits about e to that power proposals before it leaves by a flow step.

# %%
exact = jax.vmap(exact_draw)(jax.random.split(jax.random.key(21), 10_000))
for name, flow in {"with the broad part": flowjax_spline, "the spline alone": plain_spline}.items():
    log_prob = jax.jit(jax.vmap(flow.log_prob, (None, 0)))(with_spline.params, exact)
    print(f"{name}: largest log weight {(jax.vmap(logdensity)(exact) - log_prob).max():.1f}")

# %% [markdown]
# ## By hand: adapt, freeze, draw
#
# `sample` is made of public pieces. The same with the independent normals:

# %%
adapting = flowmcmc.adaptive(logdensity, blackjax.mala, normals, num_local_steps=5, num_flow_steps=5)
state, warmup = flowmcmc.run(10, adapting, starts, 200, progress_bar=False)
print("after warm-up: flow parameters", jax.tree.map(lambda leaf: leaf.round(2).tolist(), state.sampler.tuning.params))

tuning = state.sampler.tuning
frozen = flowmcmc.freeze(logdensity, blackjax.mala, normals, tuning, num_local_steps=5, num_flow_steps=5)
state, trace = flowmcmc.run(11, frozen, state.position, 300, progress_bar=False)
by_hand = flowmcmc.to_datatree(trace, warmup=warmup)
one_line("independent normals", by_hand)

# %% [markdown]
# `adaptive` returns a BlackJAX algorithm on all chains, one step of it a round. Its draws are for warm-up only, since
# adapting breaks the Markov property; `freeze` gives the kernel that leaves the density invariant. Compare the two own
# flows by their acceptance, r-hat, ESS and error: independent normals cannot follow a curve and a hill. They leave the
# same density invariant, but need more draws.

# %%
span = np.stack(np.meshgrid(np.linspace(-6, 6, 150), np.linspace(-8, 10, 150)), axis=-1).astype(np.float32)
normals_params = tuning.params
pictures = {
    "the density": jax.vmap(jax.vmap(logdensity))(span),
    "independent normals": jax.vmap(jax.vmap(partial(normals.log_prob, normals_params)))(span),
    "flowjax spline": jax.vmap(jax.vmap(partial(flowjax_spline.log_prob, with_spline.params)))(span),
}
figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained", sharey=True)
for axis, (title, log_values) in zip(axes, pictures.items()):
    image = axis.pcolormesh(span[0, :, 0], span[:, 0, 1], np.exp(log_values), vmin=0, vmax=0.1, rasterized=True)
    axis.set(xlabel="x[0]", title=title)
axes[0].set_ylabel("x[1]")
figure.colorbar(image, ax=axes, label="density (cut at 0.1)")
plt.show()

# %% [markdown]
# ## Composing samplers
#
# `cycle` runs algorithms one after another, `vmap_chains` puts one sampler on many chains, `run` drives it. So a round
# of one HMC step and four flow proposals, with parameters that are already trained, is

# %%
moves = blackjax.hmc(logdensity, step_size=0.3, inverse_mass_matrix=jnp.ones(2), num_integration_steps=5)
proposals = flowmcmc.imh(logdensity, flowjax_spline, with_spline.params)
sampler = flowmcmc.vmap_chains(flowmcmc.cycle((moves, 1), (proposals, 4)))

state, trace = flowmcmc.run(12, sampler, with_spline.state.position, 300, progress_bar=False)
hmc_info, imh_info = trace.info.parts  # the infos of the parts, in order, with an axis over their steps
print(f"HMC steps: {hmc_info.is_accepted.mean():.3f} accepted")
print(f"flow proposals: {imh_info.is_accepted.mean():.3f} accepted")

composed = az.from_dict({"posterior": {"x": np.swapaxes(trace.position, 0, 1)}})
modes = flowmcmc.mode_weights(composed, modes=which_mode)
print(f"hill {modes.weights[1]:.4f} +- {modes.mcse[1]:.4f}")

# %% [markdown]
# Any BlackJAX algorithm whose state has `.position` can be a part. Use adjusted ones: an unadjusted kernel biases the
# whole cycle.
#
# ## Is my flow right?
#
# The acceptance test divides by the flow's density. If `log_prob` and `sample_and_log_prob` do not belong together, the
# draws are wrong and no diagnostic of the run says so. Three checks, here in two dimensions, where an integral is a sum
# over a grid:
#
# 1. the log density returned with a draw is `log_prob` of that draw,
# 2. the density integrates to one,
# 3. draws fall where the density says: the share of draws in a region is the integral over it.

# %%
edge = np.linspace(-40, 40, 401)[:-1] + 0.1
plane = np.stack(np.meshgrid(edge, edge, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)


def check_flow(name, flow, params, num_draws=20_000):
    keys = jax.random.split(jax.random.key(20), num_draws)
    draws, returned = jax.jit(jax.vmap(flow.sample_and_log_prob, (0, None)))(keys, params)
    log_prob = jax.jit(jax.vmap(flow.log_prob, (None, 0)))
    mismatch = np.abs(returned - log_prob(params, draws)).max()
    masses = np.exp(np.concatenate([log_prob(params, rows) for rows in np.split(plane, 20)])) * 0.2**2

    print(f"{name}: log densities differ by at most {mismatch:.1e}, integral {masses.sum():.4f}")
    for region, is_inside in {"x[0] > 1": lambda x: x[:, 0] > 1, "|x[1]| < 2": lambda x: np.abs(x[:, 1]) < 2}.items():
        share, mass = np.asarray(is_inside(draws)).mean(), masses[is_inside(plane)].sum()
        error = np.sqrt(mass * (1 - mass) / num_draws)
        print(
            f"    {region}: share of draws {share:.4f}, integral {mass:.4f}, {(share - mass) / error:+.1f} errors apart"
        )


check_flow("independent normals", normals, normals_params)
check_flow("flowjax spline", flowjax_spline, with_spline.params)

# %% [markdown]
# Now a mistake that is easily made, a factor in one place only: the draws are half as wide as the density says. The
# first two checks pass, since every number comes from the same `log_prob`. The third does not.


# %%
def draw_too_narrow(rng_key, params):
    narrow = params | {"log_scale": params["log_scale"] - jnp.log(2.0)}
    position, _ = normals.sample_and_log_prob(rng_key, narrow)
    return position, normals.log_prob(params, position)


wrong = normals._replace(sample_and_log_prob=draw_too_narrow)
check_flow("wrong flow", wrong, normals_params)

# %% [markdown]
# In more dimensions there is no grid, but there is a check of the whole kernel that works in any: **draws of the
# density must stay draws of the density**. Take exact draws (of a density where you have them; the flow is what is
# tested), push each through some steps, and compare averages before and after. The change of an average, in units of
# its Monte Carlo error, should look like a standard normal: beyond ±4, something is wrong.


# %%
def functions(x):
    return {"x[0]": x[:, 0], "x[1]": x[:, 1], "x[1]²": x[:, 1] ** 2, "hill": 1.0 * (x[:, 1] < -2.5)}


def law_is_kept(name, flow, params):
    kernel = flowmcmc.vmap_chains(flowmcmc.imh(logdensity, flow, params))
    state, _ = flowmcmc.run(22, kernel, exact, 20, progress_bar=False)
    before, after = functions(np.asarray(exact, float)), functions(np.asarray(state.position, float))
    changes = [after[f] - before[f] for f in before]
    scores = [change.mean() / (change.std() / np.sqrt(len(change))) for change in changes]
    moved = (np.asarray(state.position) != np.asarray(exact)).any(axis=1).mean()
    shown = ", ".join(f"{f} {score:+.1f}" for f, score in zip(before, scores))
    print(f"{name} ({moved:.0%} of draws moved): {shown}")
    return scores


scores = {
    "independent normals": law_is_kept("independent normals", normals, normals_params),
    "flowjax spline": law_is_kept("flowjax spline", flowjax_spline, with_spline.params),
    "wrong flow": law_is_kept("wrong flow", wrong, normals_params),
}

# %%
figure, axis = plt.subplots(figsize=(8, 3.2), layout="constrained")
axis.axhspan(-4, 4, color="0.9", label="±4 errors")
for offset, (name, values) in zip((-0.2, 0.0, 0.2), scores.items()):
    axis.bar(np.arange(4) + offset, values, width=0.18, label=name)
axis.axhline(0.0, color="black", lw=0.8)
axis.set_yscale("symlog", linthresh=4, linscale=1.5)
ticks = [-100, -10, -4, 0, 4, 10, 100]
axis.set_yticks(ticks, labels=[str(tick) for tick in ticks])
axis.set_yticks([], minor=True)
axis.set_xticks(range(4), labels=list(functions(np.zeros((1, 2)))))
axis.set_ylabel("change in errors\n(logarithmic beyond ±4)")
axis.set(ylim=(-200, 200), title="averages before and after 20 flow steps from exact draws")
axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
plt.show()

# %% [markdown]
# The right flows keep the law, the good one and the poor one alike. The wrong one does not, although its chains would
# move and agree with each other.
#
# ## Answer
#
# - A BlackJAX kernel goes in as `local=`, its other arguments bound with `partial`.
# - A flow goes in as `flow=` once it has `init`, `sample_and_log_prob` and `log_prob` for one position; `params` may be
#   any pytree, so flows of other libraries fit in about ten lines.
# - `adaptive`, `freeze`, `run`, `cycle` and `vmap_chains` are the pieces that `sample` is made of.
# - A poor flow costs efficiency, a *wrong* one costs correctness. Run the checks above on any own flow.
