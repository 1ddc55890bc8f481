# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Does my energy-based model know how much each mode weighs?
#
# An energy-based model is p(x) = exp(-E(x)) rho(x) / Z, with a network for E and a fixed density rho. Its maximum
# likelihood gradient needs draws of the model itself ("negatives"). If these come from chains that cannot cross
# from mode to mode, the network learns the shape of each mode but not how much it weighs: nothing in the gradient
# tells. Here the same network is trained twice on a 2:1 mixture, with persistent Langevin chains, and with chains
# that a flow helps to jump.

# %%
from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ebm
import flowmcmc

MEANS, SDS, WEIGHTS = jnp.array([[-1.5, -1.5], [1.5, 1.5]]), jnp.sqrt(jnp.array([0.05, 0.1])), jnp.array([1 / 3, 2 / 3])


def draw(rng_key, num):
    key_mode, key_noise = jax.random.split(rng_key)
    mode = jax.random.categorical(key_mode, jnp.log(WEIGHTS), shape=(num,))
    return MEANS[mode] + SDS[mode, None] * jax.random.normal(key_noise, (num, 2))


def true_logdensity(x):
    joint = jnp.log(WEIGHTS) - 0.5 * jnp.sum((x - MEANS) ** 2, axis=1) / SDS**2 - jnp.log(2 * jnp.pi * SDS**2)
    return jax.nn.logsumexp(joint)


data = draw(jax.random.key(0), 16_384)
position = data[0]
print(f"share of the top right mode in the data: {float(jnp.mean(data.sum(1) > 0)):.4f}")

# %% [markdown]
# ## The model, and two ways to get negatives
#
# The tilt rho is a normal as wide as the data. Both ways keep 4096 chains alive while the energy changes, and move
# 256 of them for each update. `make_sampler` is any sampler of the core: unadjusted Langevin steps alone, or one
# MALA step and one flow proposal, the flow fitted to where the chains have been.

# %%
model = ebm.Model(*ebm.mlp(position), ebm.normal(position, scale=float(data.std(0).max())))
flow = flowmcmc.gaussian_mixture(position, num_components=8)

langevin = partial(
    flowmcmc.freeze,
    local=ebm.ula,
    flow=None,
    tuning=ebm.local_tuning(0.01, position),
    num_local_steps=40,
    num_flow_steps=0,
)
flow_assisted = partial(
    flowmcmc.adaptive, local=blackjax.mala, flow=flow, num_local_steps=1, num_flow_steps=1, refit_every=500
)

side = jnp.linspace(-4, 4, 120)
lattice = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)


@jax.jit
def weight_of_mode(theta):
    density = jax.nn.softmax(jax.vmap(model.logdensity, (None, 0))(theta, lattice))
    return jnp.sum(density * (lattice.sum(1) > 0))


def watch(state):
    return {"weight": float(weight_of_mode(state.average)), "raw": float(weight_of_mode(state.theta))}


fits = {
    "Langevin chains": ebm.fit(
        1,
        model,
        data,
        ebm.maximum_likelihood(model, ebm.persistent(langevin, start=model.tilt.sample)),
        num_steps=3000,
        monitor=watch,
        progress_bar=False,
    ),
    "flow-assisted chains": ebm.fit(
        1,
        model,
        data,
        ebm.maximum_likelihood(model, ebm.persistent(flow_assisted)),
        num_steps=3000,
        monitor=watch,
        progress_bar=False,
    ),
}

# %% [markdown]
# ## The weight of a mode over training

# %%
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for colour, (name, fit) in zip(("C1", "C0"), fits.items()):
    steps = [record["step"] for record in fit.records]
    axis.plot(steps, [record["weight"] for record in fit.records], colour, label=name)
    axis.plot(steps, [record["raw"] for record in fit.records], colour, lw=0.6, alpha=0.6)
axis.axhline(2 / 3, color="k", ls=":", label="truth")
axis.set(xlabel="update", ylabel="weight of the top right mode", ylim=(-0.03, 1.03))
axis.legend()
# %% [markdown]
# Thick lines are the averaged parameters (`fit.theta`), thin ones those in training. With Langevin chains the
# number of chains in each mode hardly changes, so the gradient pushes the weight of a mode up or down until it is
# all or nothing. With flow proposals it settles, and stays.
#
# ## Would the diagnostics have told?
#
# Yes: the persistent chains are chains, so they have an r-hat.

# %%
for name, fit in fits.items():
    print(f"{name}\n{ebm.health(fit)}\n")

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained", sharey=True)
extent = (-4, 4, -4, 4)
pictures = {"truth": jax.vmap(true_logdensity)(lattice)} | {
    name: jax.vmap(model.logdensity, (None, 0))(fit.theta, lattice) for name, fit in fits.items()
}
for axis, (name, log_p) in zip(axes, pictures.items()):
    axis.imshow((log_p - log_p.max()).reshape(120, 120), origin="lower", extent=extent, vmin=-12, vmax=0, cmap="magma")
    axis.set_title(name)

# %% [markdown]
# ## The likelihood
#
# `finish` samples the trained model with many chains, half of them started at the tilt, and estimates log Z by the
# bridge between the chains' draws and the flow's. Only then is there a normalised likelihood, and it comes with an
# error bar.

# %%
trained = ebm.finish(2, fits["flow-assisted chains"], flow, progress_bar=False)
print(trained.log_z)
print(flowmcmc.summary(trained.result))

# %%
test = draw(jax.random.key(9), 10_000)
log_p = trained.log_prob(test)
kl, error = ebm.kl_divergence(true_logdensity, test, model, trained.theta, trained.log_z.log_z)
print(f"held-out log likelihood: {float(log_p.mean()):.4f} nats a point, log Z known to {trained.log_z.error:.4f}")
print(f"the true density's:      {float(jax.vmap(true_logdensity)(test).mean()):.4f}")
print(f"KL(truth | model) = {kl:.4f} +- {np.hypot(error, trained.log_z.error):.4f}")

# %% [markdown]
# The grid, which needs no sampler at all, agrees:

# %%
grid = ebm.grid(model, trained.theta, low=-6, high=6)
weights = ebm.grid_mode_weights(grid, lambda x: (x.sum(1) > 0).astype(int))
print(f"log Z on a grid {grid.log_z:.4f}, weights {weights[0]:.4f} {weights[1]:.4f} (truth 0.3333 0.6667)")

# %% [markdown]
# So: the flow-assisted model knows that one mode is twice as heavy as the other; the same network trained on
# Langevin chains does not, and its r-hat says so before anybody looks at a picture.
