"""Galaxy velocities: a three-component mixture whose labels can be swapped in six ways.

The model is Chib's (1995), velocities y_i in units of 1000 km/s, k = 1, 2, 3::

    y_i ~ sum_k w_k N(mu_k, sigma_k^2)       mu_k ~ N(20, 100)
    sigma_k^2 ~ InverseGamma(3, 20)          w ~ Dirichlet(1, 1, 1)

Likelihood and prior do not change when the labels are permuted, so the posterior is made of six equal
copies, told apart by the ordering of the means ("labelling"), each of mass 1/6. A local sampler rarely leaves
the copy it starts in.

The position is unconstrained: ``mu`` (3,), ``log_sigma2`` (3,) and ``weights_raw`` (2,), the isometric
log-ratio of the weights, ``w = softmax(BASIS @ weights_raw)``. BASIS has orthonormal columns that sum to
zero, so permuting labels rotates or reflects ``weights_raw`` and no label is special. The map
``weights_raw -> (w_1, w_2)`` has the Jacobian determinant ``sqrt(3) w_1 w_2 w_3``.

References
----------
Data: Postman, Huchra and Geller (1986), "Probes of large-scale structure in the Corona Borealis region",
Astronomical Journal 92; tabulated by Roeder (1990), Journal of the American Statistical Association 85.
Model: Chib (1995), "Marginal likelihood from the Gibbs output", same journal, 90.
"""

import functools
import importlib.resources
import itertools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np

PERMUTATIONS = np.array(list(itertools.permutations(range(3))))
ORDERINGS = tuple("<".join(str(k + 1) for k in permutation) for permutation in PERMUTATIONS)
BASIS = np.array([[1, 1], [-1, 1], [0, -2]]) / np.sqrt([2, 6])
_RGB = np.array([[0, 90, 160], [86, 180, 233], [0, 140, 100], [240, 220, 60], [213, 94, 0], [204, 121, 167]])


@functools.cache
def load():
    """Return the 82 velocities in 1000 km/s, ascending, as a read-only float64 array."""
    text = importlib.resources.files(__package__).joinpath("galaxies.csv").read_text()
    velocities = np.array(text.split()[1:], dtype=float) / 1000
    velocities.setflags(write=False)
    return velocities


def constrain(position):
    """Map one unconstrained position to ``dict(mu, sigma, weights)``, each of shape (3,)."""
    mu, sigma = position["mu"], jnp.exp(position["log_sigma2"] / 2)
    return {"mu": mu, "sigma": sigma, "weights": jnp.exp(_log_weights(position))}


def logdensity(position):
    """Log of likelihood times prior density of one unconstrained position, a scalar of the position's dtype.

    All constants and the Jacobian are in, so its exponential integrates to the evidence p(y).
    """
    mu, log_sigma2, log_w = position["mu"], position["log_sigma2"], _log_weights(position)
    log_mixture = jax.vmap(lambda y: jax.nn.logsumexp(log_w + _log_normal(y, mu, log_sigma2)))
    log_likelihood = log_mixture(jnp.asarray(load(), mu.dtype)).sum()
    log_prior_mu = _log_normal(mu, 20.0, math.log(100.0)).sum()
    # InverseGamma(3, 20) in sigma^2, times sigma^2 for the move to its logarithm.
    log_prior_sigma2 = (3 * math.log(20) - math.log(2) - 3 * log_sigma2 - 20 * jnp.exp(-log_sigma2)).sum()
    # The Dirichlet(1, 1, 1) density is the constant 2!; the rest is the volume element.
    log_prior_weights = math.log(2) + math.log(3) / 2 + log_w.sum()
    return log_likelihood + log_prior_mu + log_prior_sigma2 + log_prior_weights


def starting_positions(rng_key, num_chains):
    """Draw overdispersed starts, a dict with a leading axis ``num_chains``; chain i has labelling ``i % 6``.

    Each chain cuts the sorted data at two random places, takes the means, variances and shares of the three
    groups, jitters the last two and permutes the labels. Nothing known about the posterior goes in.
    """
    permutations = jnp.asarray(PERMUTATIONS)[jnp.arange(num_chains) % 6]
    return jax.vmap(_starting_position)(jax.random.split(rng_key, num_chains), permutations)


def labelling(mu):
    """Index into ORDERINGS of the order of the means, (..., 3) -> (...,); "2<1<3" is mu_2 < mu_1 < mu_3."""
    order = np.argsort(mu, axis=-1)
    # Permutations of three are listed lexicographically: two per first entry, the ascending one first.
    return 2 * order[..., 0] + (order[..., 1] > order[..., 2])


def run_nuts(seed, num_chains=4, num_warmup=1000, num_samples=1000):
    """Sample with NumPyro's NUTS from `starting_positions`.

    Returns a DataTree (posterior: the position, ``sigma``, ``weights``) and the seconds, with compilation.
    """
    import arviz as az
    from numpyro.infer import MCMC, NUTS

    key_start, key_run = jax.random.split(jax.random.key(seed))
    starts = starting_positions(key_start, num_chains)
    # On two CPU cores as fast as "sequential" for 4 chains, twice as fast for 12.
    mcmc = MCMC(
        NUTS(potential_fn=lambda position: -logdensity(position)),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    begin = time.perf_counter()
    mcmc.run(key_run, init_params=starts if num_chains > 1 else jax.tree.map(lambda x: x[0], starts))
    draws = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
    seconds = time.perf_counter() - begin
    posterior = draws | jax.vmap(jax.vmap(constrain))(draws)
    return az.from_dict({"posterior": jax.tree.map(np.asarray, posterior)}), seconds


def plot(nuts, flow, path):
    """Draw labelling over time, (mu_1, mu_2) and mass per labelling, NUTS beside flowmcmc; save to path."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 11.5), layout="constrained")
    axes = figure.subplots(3, 2, height_ratios=(3, 6, 4))
    axes[2, 0].sharey(axes[2, 1])
    for column, name, tree in zip(axes.T, ("NUTS", "flowmcmc"), (nuts, flow), strict=True):
        _plot_column(column, name, tree.posterior["mu"].values)
    for axis, label in zip(axes[1:, 0], (r"$\mu_2$  (1000 km/s)", "posterior mass"), strict=True):
        axis.set_ylabel(label)
    figure.savefig(path, dpi=120)


def table(datatrees):
    """Compare samplers, given as name -> (DataTree, seconds), in a plain text table with a line for each.

    Columns: largest r-hat and smallest bulk ESS of the position, mass per labelling with its Monte Carlo
    standard error, seconds. A dash stands for a number that cannot be estimated.
    """
    import arviz as az

    masses = "".join(f"{name:>15}" for name in ORDERINGS)
    lines = [f"{'sampler':<10}{'r-hat':>6}{'min ESS':>9}{masses}{'seconds':>9}"]
    for name, (tree, seconds) in datatrees.items():
        position = tree.posterior.to_dataset()[["mu", "log_sigma2", "weights_raw"]]
        # NumPy's extrema keep a NaN, xarray's would drop it.
        rhat = np.max([variable.values.max() for variable in az.rhat(position).values()])
        ess = np.min([variable.values.min() for variable in az.ess(position).values()])
        visits = labelling(position["mu"].values)[..., None] == np.arange(6)
        cells = "".join(f"{_mass(visits[..., k].astype(float), az.mcse):>15}" for k in range(6))
        lines.append(f"{name:<10}{_number(rhat, '.2f'):>6}{_number(ess, '.0f'):>9}{cells}{seconds:>9.1f}")
    return "\n".join(lines)


def _log_weights(position):
    raw = position["weights_raw"]
    return jax.nn.log_softmax(jnp.asarray(BASIS, raw.dtype) @ raw)


def _log_normal(x, mean, log_variance):
    return -0.5 * ((x - mean) ** 2 * jnp.exp(-log_variance) + log_variance + math.log(2 * math.pi))


def _starting_position(rng_key, permutation):
    key_cuts, key_sigma, key_weights = jax.random.split(rng_key, 3)
    y = jnp.asarray(load(), float)
    lower, upper = jnp.array([[0.05, 0.55], [0.45, 0.95]]) * y.size
    cuts = jax.random.uniform(key_cuts, (2,), minval=lower, maxval=upper)
    group = jax.nn.one_hot(jnp.searchsorted(cuts, jnp.arange(y.size)), 3)
    size = group.sum(0)
    mu = y @ group / size
    log_sigma2 = jnp.log((y - group @ mu) ** 2 @ group / size) + 0.5 * jax.random.normal(key_sigma, (3,))
    log_w = jnp.log(size) + 0.5 * jax.random.normal(key_weights, (3,))
    # Entry j of `permutation` is the label of the j-th smallest mean.
    rank = jnp.argsort(permutation)
    weights_raw = log_w[rank] @ jnp.asarray(BASIS, float)
    return {"mu": mu[rank], "log_sigma2": log_sigma2[rank], "weights_raw": weights_raw}


def _plot_column(axes, name, mu):
    raster, plane, bars = axes
    label, points = labelling(mu), mu.reshape(-1, 3)[:: -(-mu[..., 0].size // 3000)]
    counts = (label[..., None] == np.arange(6)).mean(1)
    raster.set_title(f"{name}\na chain spends {counts.max(1).mean():.1%} of its draws in its main labelling")
    # Thinned, so that a cell stays visible where a chain changes its labelling at every draw.
    shown = label[:8, :: -(-label.shape[1] // 120)]
    box = (0.5, label.shape[1] + 0.5, len(shown) + 0.5, 0.5)
    raster.imshow(_RGB[shown], extent=box, aspect="auto", interpolation="nearest")
    raster.set(xlabel="draw", ylabel="chain", yticks=range(1, len(shown) + 1))
    plane.scatter(points[:, 0], points[:, 1], c=_RGB[labelling(points)] / 255, s=4)
    plane.set(xlabel=r"$\mu_1$  (1000 km/s)", xlim=(5, 40), ylim=(5, 40))
    bars.bar(ORDERINGS, counts.mean(0), color=_RGB / 255)
    bars.axhline(1 / 6, color="black", ls="--", label="exact: 1/6")
    bars.set_xlabel("labelling, the ordering of the means (colours as above)")
    bars.legend(loc="upper right")


def _mass(visits, mcse):
    # Without variance (never or always visited) the estimated error would be 0; in truth it is unknown.
    error = float(mcse(visits)) if 0 < visits.mean() < 1 else math.nan
    return f"{visits.mean():.3f} +- {_number(error, '.3f')}"


def _number(value, form):
    return format(value, form) if np.isfinite(value) else "-"
