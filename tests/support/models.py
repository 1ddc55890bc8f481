"""A NumPyro model whose posterior is known."""

import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats


def conjugate(y=None):
    """mu ~ N(0, 2), tau ~ Gamma(3, 2), y ~ N(mu, tau^-1/2); posterior known up to a constant."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = numpyro.sample("tau", dist.Gamma(3.0, 2.0))
    numpyro.deterministic("sd", tau**-0.5)
    with numpyro.plate("data", 5 if y is None else len(y)):
        numpyro.sample("y", dist.Normal(mu, tau**-0.5), obs=y)


Y = np.array([0.3, 1.4, -0.2, 0.9, 1.1])


def posterior_mean_of_mu() -> float:
    mu, tau = np.meshgrid(np.linspace(-4, 5, 800), np.linspace(1e-3, 9, 800), indexing="ij")
    log_p = stats.norm(0, 2).logpdf(mu) + stats.gamma(3, scale=0.5).logpdf(tau)
    log_p += sum(stats.norm(mu, tau**-0.5).logpdf(y) for y in Y)
    p = np.exp(log_p - log_p.max())
    return float((p * mu).sum() / p.sum())
