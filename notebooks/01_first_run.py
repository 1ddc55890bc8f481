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
# # My density has two modes and NUTS gets stuck. What now?
#
# A sampler that follows gradients walks; it does not jump. If two regions of high density are separated by a wide
# valley, each chain stays in the region where it started, and the sampler reports the shares of the *starts*, not of
# the density.
#
# This notebook takes a density whose answer is known, shows what NUTS makes of it, runs `flowmcmc.sample` instead, and
# compares with the truth. It needs the `demo` extra: `pip install 'flowmcmc[demo]'`.

# %%
import tempfile
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.stats import norm
from numpyro.infer import MCMC, NUTS

import flowmcmc
from flowmcmc.plots import plot_chains

# %% [markdown]
# ## The density
#
# Two thirds of the mass lie on a curved ridge (a "banana"), one third in a round hill below it. Both parts are
# normalised, so the weights are known exactly. flowmcmc wants what BlackJAX wants: a function of **one** position,
# written with `jax.numpy`, that returns the log density up to a constant.

# %%
TRUE_WEIGHTS = np.array([2 / 3, 1 / 3])


def log_banana(x):
    return norm.logpdf(x[0], 0.0, 1.5) + norm.logpdf(x[1], 0.5 * x[0] ** 2, 0.4)


def log_hill(x):
    return norm.logpdf(x[0], 0.0, 0.6) + norm.logpdf(x[1], -5.0, 0.6)


def logdensity(x):
    return jnp.logaddexp(jnp.log(2 / 3) + log_banana(x), jnp.log(1 / 3) + log_hill(x))


def which_mode(draws):
    """0 for the banana, 1 for the hill; the valley between them holds next to nothing."""
    return (draws[:, 1] < -2.5).astype(int)


# %% [markdown]
# Starting positions: we pretend to know only a rough scale and scatter 100 chains widely.

# %%
starts = 5.0 * jax.random.normal(jax.random.key(1), (100, 2))

grid = np.stack(np.meshgrid(np.linspace(-6, 6, 200), np.linspace(-8, 10, 200)), axis=-1)
density = np.exp(jax.vmap(jax.vmap(logdensity))(grid))


def draw_density(axis):
    axis.contour(grid[..., 0], grid[..., 1], density, levels=[0.0005, 0.005, 0.02, 0.05], colors="0.6", linewidths=0.8)
    axis.set(xlabel="x[0]", ylabel="x[1]", xlim=(-6, 6), ylim=(-8, 10))


figure, axis = plt.subplots(figsize=(5, 4.5), layout="constrained")
draw_density(axis)
axis.scatter(*starts.T, s=8, color="tab:red", label="starting positions")
axis.set_title("the density (contours) and the starts inside the frame")
axis.legend(loc="lower right")
plt.show()

# %% [markdown]
# ## What NUTS makes of it
#
# Four chains of NumPyro's NUTS from the first four starts. NUTS itself is not at fault: it adapts well and explores
# the mode it is in.

# %%
nuts = MCMC(
    NUTS(potential_fn=lambda x: -logdensity(x)),
    num_warmup=1000,
    num_samples=1000,
    num_chains=4,
    chain_method="vectorized",
    progress_bar=False,
)
nuts.run(jax.random.key(2), init_params=starts[:4])
nuts_tree = az.from_dict({"posterior": {"x": np.asarray(nuts.get_samples(group_by_chain=True))}})

print(flowmcmc.summary(nuts_tree, modes=which_mode))

# %% [markdown]
# `flowmcmc.summary` reads any arviz `DataTree`. Look at "entered": if no chain ever crosses, the weight of a mode is
# the share of chains that began near it. With four chains that can only be 0, 1/4, 1/2, 3/4 or 1, and never 2/3. r-hat
# says that the chains disagree, and running longer would not help.

# %%
figure, (plane, time) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
draw_density(plane)
for chain, draws in enumerate(nuts_tree.posterior["x"].values):
    plane.scatter(*draws[::5].T, s=4, label=f"chain {chain}")
    time.plot(draws[:, 1], lw=0.6)
plane.set_title("NUTS: draws of four chains")
plane.legend(loc="upper right", markerscale=3)
time.set(xlabel="draw", ylabel="x[1]", title="NUTS: x[1] over time, one colour a chain")
plt.show()

# %% [markdown]
# ## flowmcmc
#
# The same density, all 100 starts. A round moves each chain by a few local steps and then offers it a few proposals
# from a normalizing flow. During warm-up the flow is trained on where the chains have been; afterwards it is frozen and
# the draws begin. A Metropolis-Hastings test accepts or rejects each proposal, so the flow need not be perfect for the
# draws to be right; a poor one only makes jumps rarer.

# %%
result = flowmcmc.sample(0, logdensity, starts, progress_bar=False)
found = flowmcmc.summary(result, modes=which_mode)
print(found)

# %% [markdown]
# The first block is arviz's table. Below it stand the acceptance rates, a look at the flow alone, and the modes: how
# much of the mass each holds with its Monte Carlo error, how many chains visited it and how often it was entered.
# The last lines are a verdict in words.
#
# We passed `modes=which_mode` because we know the two regions. Without it, `summary` looks for modes by clustering the
# draws:

# %%
clustered = flowmcmc.mode_weights(result)
print("modes found by clustering, weights:", clustered.weights.round(4))

# %% [markdown]
# ### Against the truth
#
# The mean of `x[1]` is known too: the banana's is E[x₀²]/2 = 1.5²/2, the hill's is −5.

# %%
x1 = result.datatree.posterior["x"].sel(x_dim_0=1)
rows = [
    ("weight of the banana", found.modes.weights[0], found.modes.mcse[0], TRUE_WEIGHTS[0]),
    ("weight of the hill", found.modes.weights[1], found.modes.mcse[1], TRUE_WEIGHTS[1]),
    ("mean of x[1]", float(x1.mean()), float(az.mcse(x1.values)), TRUE_WEIGHTS @ [1.5**2 / 2, -5.0]),
]
print(f"{'':22}{'estimate':>10}{'MC error':>10}{'truth':>10}{'off by':>18}")
for name, estimate, error, truth in rows:
    print(f"{name:22}{estimate:10.4f}{error:10.4f}{truth:10.4f}{(estimate - truth) / error:+11.1f} errors")

# %% [markdown]
# An estimate should lie within about two or three of its errors from the truth. The run states that error by itself,
# without knowing the truth.
#
# ### In a picture
#
# `plot_chains` draws one (and saves it, given a path): the draws, the mode each chain is in over time, and the mass of
# the modes. A chain that changes its colour often is a chain that jumps.

# %%
plot_chains(result, modes=which_mode)

# %% [markdown]
# What happened during warm-up is kept as well: the share of flow proposals that were accepted, round by round, and the
# loss on states that the flow was not trained on.

# %%
history = result.datatree["warmup_history"]
figure, (rate, loss) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
rate.plot(history["flow_acceptance_rate"], label="flow proposals")
rate.plot(history["local_acceptance_rate"], label="local steps", lw=0.8)
rate.set(xlabel="round of warm-up", ylabel="acceptance rate", ylim=(0, 1), title="acceptance while training")
rate.legend()
loss.plot(history["heldout_loss"])
loss.set(xlabel="round of warm-up", ylabel="−log q (nats)", title="loss on held-out states")
plt.show()

# %% [markdown]
# ## The draws are an arviz DataTree
#
# Everything arviz can do, it can do with `result.datatree`. A position that is a dict gives one variable for each key;
# a bare array is called `x`.

# %%
tree = result.datatree
print(tree.groups)
print(tree.posterior["x"].dims, tree.posterior["x"].shape)
print("largest r-hat:", float(az.rhat(tree)["x"].max().round(4)))
print("settings kept with it:", {k: tree.attrs[k] for k in ("num_chains", "num_warmup", "num_samples")})

# %% [markdown]
# Save it, and read it back another day:

# %%
folder = Path(tempfile.mkdtemp())
tree.to_netcdf(folder / "two_modes.nc")
again = az.from_netcdf(folder / "two_modes.nc")
print("same draws:", bool((again.posterior["x"] == tree.posterior["x"]).all()))

# %% [markdown]
# ## Drawing more
#
# `result.more` goes on where the chains stand, with the frozen sampler: the longer run is the same, bit for bit, as one
# that had asked for all draws at once.

# %%
longer = result.more(1000, progress_bar=False)
before, after = found.modes, flowmcmc.mode_weights(longer, modes=which_mode)
print(f"{result.datatree.posterior.sizes['draw']} draws a chain: hill {before.weights[1]:.4f} +- {before.mcse[1]:.4f}")
print(f"{longer.datatree.posterior.sizes['draw']} draws a chain: hill {after.weights[1]:.4f} +- {after.mcse[1]:.4f}")

# %% [markdown]
# Twice the draws make the error smaller by about √2.
#
# ## Where to start the chains
#
# A flow learns the modes that *some* chain has seen. A mode that no chain starts near will most likely never be found,
# and nothing in the output can tell. So spend the freedom of 100 chains on the starts:
#
# - Draw them from the prior, or from anything wider than the posterior, as here.
# - Add starts at modes that you know or suspect: optimiser runs from random points, swapped labels, flipped signs.
# - The numbers of starts need not match the weights. Counted here by the side of the valley on which a chain began:

# %%
print("share of starts by side of the valley:", np.bincount(which_mode(starts)) / len(starts))
print("weights after sampling:               ", found.modes.weights.round(4))
print("truth:                                ", TRUE_WEIGHTS.round(4))

# %% [markdown]
# ## Answer
#
# Give `flowmcmc.sample` the same log density and some 100 scattered starts, read `flowmcmc.summary(result)`, and use
# the weights with the errors printed beside them. NUTS gave the shares of its starts; here chains jump between the
# modes and the weights agree with the truth within their error. What remains yours is to start chains widely enough.
# The next notebook, `02_diagnosing_mixing`, shows what runs look like when something is wrong.
