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
# # Can I trust this run?
#
# A sampler always returns numbers. This notebook makes runs go wrong on purpose, one fault at a time, on a density
# whose answer is known, and looks for the number that shows the fault. It starts with a healthy run, so that we know
# what healthy looks like, and ends with a table from symptom to remedy. It needs the `demo` extra:
# `pip install 'flowmcmc[demo]'`.

# %%
from dataclasses import replace

import arviz as az
import blackjax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from jax.scipy.stats import norm
from matplotlib.colors import ListedColormap

import flowmcmc

# %% [markdown]
# ## The density
#
# Three normal hills in eight dimensions, far apart, with weights 0.5, 0.3 and 0.2. The second and third are narrower.
# Every exact number is known, and local steps have no way across.

# %%
DIM = 8
WEIGHTS = np.array([0.5, 0.3, 0.2])
CENTRES = np.zeros((3, DIM))
CENTRES[1, 0] = CENTRES[2, 1] = 12.0
WIDTHS = np.array([1.0, 0.7, 0.7])


def logdensity(x):
    hills = jnp.log(WEIGHTS) + jnp.sum(norm.logpdf(x, CENTRES, WIDTHS[:, None]), axis=1)
    return jax.nn.logsumexp(hills)


# %% [markdown]
# Sixty chains, a third around each centre. In practice the centres come from optimiser runs, swapped labels, flipped
# signs, or from a wide prior. The numbers need not match the weights.

# %%
noise = 2.0 * jax.random.normal(jax.random.key(1), (60, DIM))
spread_starts = jnp.asarray(CENTRES)[jnp.arange(60) % 3] + noise
flow = flowmcmc.gaussian_mixture(jnp.zeros(DIM), num_components=6)  # enough for hills
options = {"flow": flow, "local": blackjax.mala, "num_local_steps": 5, "num_samples": 500, "progress_bar": False}

# %% [markdown]
# Two helpers: one line of numbers for a run, and a raster of the mode that each chain is in.

# %%
reports = {}


def worst(dataset, pick):
    return float(pick([pick(v.values) for v in dataset.data_vars.values()]))


def report(name, result, modes=None):
    """Keep the numbers of a run under `name` and return its summary."""
    found = flowmcmc.summary(result, modes=modes)
    rates, stats = found.rejections, result.datatree["sample_stats"]
    reports[name] = {
        "r-hat": worst(az.rhat(result.datatree), np.max),
        "bulk ESS": worst(az.ess(result.datatree), np.min),
        "modes": len(found.modes.weights),
        "largest error of a weight": np.max(found.modes.mcse),
        "fewest entries into a mode": int(found.modes.transitions.min()),
        "flow acceptance": float(rates["flow_acceptance_rate"].mean()) if "flow_acceptance_rate" in rates else np.nan,
        "longest rejection": int(rates["longest_rejection"].max()) if "longest_rejection" in rates else np.nan,
        "Pareto k": found.importance.pareto_k if found.importance else np.nan,
        "flow ESS": found.importance.ess if found.importance else np.nan,
        "invalid proposals": int(stats["num_flow_invalid"].sum()),
        "problems in verdict": len(found.problems),
    }
    return found


def raster(axis, result, title, num_chains=20):
    labels = flowmcmc.mode_weights(result, modes=CENTRES).labels[:num_chains]
    colours = ListedColormap(plt.get_cmap("tab10").colors[:3])
    image = axis.imshow(labels, aspect="auto", interpolation="nearest", cmap=colours, vmin=-0.5, vmax=2.5)
    axis.set(xlabel="draw", ylabel="chain", title=title, yticks=range(0, num_chains, 5))
    return image


# %% [markdown]
# ## A healthy run

# %%
good = flowmcmc.sample(0, logdensity, spread_starts, num_warmup=120, **options)
print(report("healthy", good))

# %% [markdown]
# How to read it, from the top:
#
# - **r-hat** compares chains with each other. Near 1.00 they agree; above 1.01 they do not.
# - **ESS** is the number of independent draws that would give the same error. Ask for 400 at least.
# - **flow acceptance** is the share of proposed jumps that were taken, **longest rejection** the longest time that a
#   chain waited for one, in rounds.
# - **Pareto k** looks at the flow alone: above 0.7, it misses part of the density or its tails. **ESS of its draws** is
#   what importance sampling with the flow would be worth.
# - **mode lines**: weight with Monte Carlo error, and how often chains *entered* the mode. Many entries mean that
#   the weight was measured; none mean that it was put in by the starts.
#
# ## Fault 1: no jumps, or hardly any
#
# First without flow steps at all (`num_flow_steps=0`), then with a warm-up of 2 rounds, in which the flow learns next
# to nothing.

# %%
local_only = flowmcmc.sample(0, logdensity, spread_starts, num_flow_steps=0, num_warmup=120, **options)
found = report("no flow steps", local_only)
print(found.verdict)

# %%
too_short = flowmcmc.sample(0, logdensity, spread_starts, num_warmup=2, **options)
found = report("2 rounds of warm-up", too_short)
print(found.verdict)

# %% [markdown]
# Weights against the truth, each with the error that the run itself states:

# %%
print(f"{'truth':22}" + "".join(f"{weight:>20.3f}" for weight in WEIGHTS))
for name, result in {"healthy": good, "no flow steps": local_only, "2 rounds of warm-up": too_short}.items():
    modes = flowmcmc.mode_weights(result, modes=CENTRES)
    cells = [f"{weight:.3f} +- {error:.3f}" for weight, error in zip(modes.weights, modes.mcse)]
    print(f"{name:22}" + "".join(f"{cell:>20}" for cell in cells), "  entered", modes.transitions)

# %% [markdown]
# Without flow steps the weights are the shares of the starts, a third each, and no mode was ever entered. The stated
# error is large because chains disagree. With a poor flow there are some jumps: the estimate is right within its error,
# but the error is large.
#
# The raster shows it at a glance: a colour for each mode, a line for each chain.

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained", sharey=True)
raster(axes[0], good, "healthy")
raster(axes[1], too_short, "2 rounds of warm-up")
image = raster(axes[2], local_only, "no flow steps")
for axis in axes[1:]:
    axis.set_ylabel("")
figure.colorbar(image, ax=axes, ticks=[0, 1, 2], label="mode")
plt.show()

# %% [markdown]
# arviz's rank plot shows the same without knowing the modes. Each line compares one chain with all draws; if the chains
# agree, the lines wander about zero. A test stands at the top left (a small p: they do not agree), and black marks the
# ranks that speak against agreement. Here for twelve chains and the first coordinate.


# %%
def twelve_chains(result):
    first = result.datatree["posterior"].to_dataset().isel(chain=slice(12), x_dim_0=0)
    return xr.DataTree.from_dict({"posterior": first})


for name, result in {"healthy": good, "2 rounds of warm-up": too_short, "no flow steps": local_only}.items():
    ranks = az.plot_rank(twelve_chains(result), figure_kwargs={"figsize": (7, 2.8)})
    ranks.get_target("x", {}).set_title(f"{name}: ranks of x[0], a line for each of twelve chains")
plt.show()

# %% [markdown]
# ## Fault 2: every chain starts in the same mode
#
# The same settings as in the healthy run, only the starts differ: all sixty chains begin around the first centre.

# %%
one_mode = flowmcmc.sample(0, logdensity, noise, num_warmup=120, **options)
print(report("starts in one mode", one_mode))

# %% [markdown]
# Half of the density is missing, and most numbers look as good as in the healthy run, or better. This is not a flaw of
# one diagnostic: draws that never saw a region hold no information about it. The sampler was exact, but 500 rounds are
# not enough for a jump that happens once in a very long time. Here two chains of sixty stumbled upon one of the other
# modes each, by a proposal from the broad part of the flow (`defensive`), and their long waits there give the run away.
# Do not count on it: with other seeds there is no trace of a mode.
#
# What helps is outside of the draws:
#
# - Spread the starts: this is the whole difference to the healthy run.
# - Name what you suspect. If you pass centres, the mode lines say how many chains were ever there, and the verdict of
#   `summary(result, modes=CENTRES)` names a mode that none visited:

# %%
named = flowmcmc.mode_weights(one_mode, modes=CENTRES)
print(flowmcmc.summary(one_mode, modes=CENTRES).verdict, end="\n\n")
for mode, (weight, visitors) in enumerate(zip(named.weights, named.num_chains)):
    print(f"mode {mode}: weight {weight:.3f}, visited by {visitors} of 60 chains (truth {WEIGHTS[mode]})")

# %% [markdown]
# ## Fault 3: a flow with tails that are too thin
#
# The weight of a proposal is density over flow density, p/q. Where q is far smaller than p, a chain that gets there
# (by a local step, say) has a huge weight, and then no proposal is good enough to leave. flowmcmc's flows guard against
# this with `defensive=0.05`: one proposal in twenty comes from a broad, heavy-tailed density.
#
# To see the fault we have to build it: the flow of the healthy run without its defensive part, every component
# narrowed to 0.6 of its width. `freeze` takes any `Tuning`, so also this one. The chains go on from where the healthy
# run stood, with flow steps only.


# %%
def narrowed(params, factor):
    mixture = params.mixture
    narrow = mixture._replace(cholesky=factor * mixture.cholesky, inverse=mixture.inverse / factor)
    return params._replace(mixture=narrow)


thin_flow = flowmcmc.gaussian_mixture(jnp.zeros(DIM), num_components=6, defensive=0.0)
thin_tuning = good.tuning._replace(params=narrowed(good.params, 0.6))


def draw_with_thin_flow(num_local_steps):
    algorithm = flowmcmc.freeze(
        logdensity, blackjax.mala, thin_flow, thin_tuning, num_local_steps=num_local_steps, num_flow_steps=5
    )
    state, trace = flowmcmc.run(3, algorithm, good.state.position, 500, progress_bar=False)
    return replace(good, flow=thin_flow, tuning=thin_tuning, algorithm=algorithm, state=state, trace=trace)


thin = draw_with_thin_flow(num_local_steps=0)
found = report("thin tails, no local steps", thin, modes=CENTRES)
print(found.verdict)
print(f"\nflow alone: Pareto k {found.importance.pareto_k:.2f}, ESS {found.importance.ess:.1%} of its draws")

# %% [markdown]
# The mean acceptance (in the table at the end) does not look bad, and every mode was entered often. What shows the
# fault is the *longest* run of rejections over all chains, together with Pareto k and the small ESS of the flow's
# draws. (We passed the centres as `modes=`, since to the clustering a chain that never moves looks like a small mode.)
# The chain that waited longest, beside the same chain in the healthy run:

# %%
stuck = int(np.argmax(found.rejections["longest_rejection"].values))
figure, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained", sharey=True)
for axis, result, title in zip(axes, (good, thin), ("healthy", "thin tails")):
    draws = result.datatree.posterior["x"].sel(chain=stuck, x_dim_0=2)
    axis.plot(draws, lw=0.8)
    longest = int(flowmcmc.rejections(result)["longest_rejection"].sel(chain=stuck))
    axis.set(xlabel="draw", title=f"{title}, chain {stuck}: longest wait {longest} rounds")
axes[0].set_ylabel("x[2]")
plt.show()

# %% [markdown]
# Local steps soften it, since they let a chain walk away from the bad place. One local step in each round:

# %%
softened = draw_with_thin_flow(num_local_steps=1)
found = report("thin tails, 1 local step", softened, modes=CENTRES)
print(found.verdict)
print(f"\nlongest rejection {int(found.rejections['longest_rejection'].max())} rounds")

# %% [markdown]
# ## Fault 4: a density that is NaN somewhere
#
# A Gamma(1.5) density written without a thought for x ≤ 0, where the logarithm is NaN:


# %%
def log_gamma(x):
    return 0.5 * jnp.log(x) - x


positive = jax.random.uniform(jax.random.key(2), (60,), minval=0.1, maxval=3.0)
scalar_flow = flowmcmc.gaussian_mixture(jnp.zeros(()), num_components=6)
with_nan = flowmcmc.sample(
    0, log_gamma, positive, flow=scalar_flow, num_warmup=120, num_samples=500, progress_bar=False
)
found = report("NaN for x <= 0", with_nan)
print(found.verdict)

# %% [markdown]
# A NaN counts as zero density: such proposals are rejected and counted (`num_flow_invalid` in `sample_stats`), so the
# draws are right for the density on x > 0. Here that is what was meant. The remedy is to say so: either return
# `-jnp.inf` outside the support, or, better, sample a parameter that may be any number. With u = log x the density gets
# the Jacobian e^u:

# %%
in_logs = flowmcmc.sample(
    0,
    lambda u: log_gamma(jnp.exp(u)) + u,
    jnp.log(positive),
    flow=scalar_flow,
    num_warmup=120,
    num_samples=500,
    progress_bar=False,
)
found = report("the same in log x", in_logs)
print(found.verdict)

print("\nmean of x, exact 1.5:")
for name, x in {"with NaN": with_nan.trace.position.T, "in log x": np.exp(in_logs.trace.position.T)}.items():
    print(f"  {name}: {x.mean():.4f} +- {az.mcse(x):.4f}")

# %% [markdown]
# ## All runs side by side

# %%
numbers = pd.DataFrame(reports)
formats = {"r-hat": ".3f", "Pareto k": ".2f", "flow acceptance": ".3f", "flow ESS": ".3f"}
formats["largest error of a weight"] = ".3f"
shown = pd.DataFrame(
    {name: [format(numbers[name][row], formats.get(row, ".0f")) for row in numbers.index] for name in numbers},
    index=numbers.index,
).T.replace("nan", "–")
shown

# %% [markdown]
# (Pareto k and flow ESS are those of the flow alone.)
#
# ## Answer: from symptom to remedy
#
# | symptom | what shows it | remedy |
# |---|---|---|
# | chains stay in their mode | r-hat > 1.01, modes entered 0 times, one-coloured lines in the raster | flow steps |
# | jumps are rare | flow acceptance < 0.05, few entries, large error of weights | longer warm-up, larger flow, `isir` |
# | no chain has seen a mode | nothing in the draws | spread the starts; name suspected modes with `modes=` |
# | the flow's tails are too thin | longest rejection of *some* chain, Pareto k > 0.7 | `defensive`, more local steps |
# | the density is NaN somewhere | invalid proposals, named in the verdict | `-jnp.inf` there, or a free parameter |
# | errors are large, all else is well | Monte Carlo errors, ESS | more draws |
#
# So: read the verdict, then the raster. Trust the run if r-hat, ESS and acceptance pass, every mode was entered many
# times, no chain waited long, *and* you know that the chains started widely enough. The last point is the one that only
# you can check.
