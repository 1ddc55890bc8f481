"""Real posteriors, and heavy tails."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _targets import Target, wide

LONG_RUN = Path(__file__).parent / "results" / "truth_logistic.json"


def student(dim: int = 10, degrees: float = 5.0) -> Target:
    """Two Student t densities of 5 degrees of freedom and unit scale, ten apart along the diagonal, weights 2:1."""
    shift = 5.0 / dim**0.5

    def logdensity(x):
        def log_t(centre):
            return -(degrees + dim) / 2 * jnp.log1p(jnp.sum((x - centre) ** 2) / degrees)

        return jnp.logaddexp(jnp.log(2.0) + log_t(shift), log_t(-shift))

    mean = shift / 3
    variance = np.full(dim, degrees / (degrees - 2) + shift**2 - mean**2)
    return Target(logdensity, wide(dim, 10.0), np.full(dim, mean), variance)


def eight_schools() -> Target:
    """Centred, in (mu, log tau, theta): mu ~ N(0, 5^2), tau ~ half Cauchy(5), theta_j ~ N(mu, tau^2).

    Data of Rubin (1981). Given tau all is Gaussian, so moments come from quadrature over log tau.
    """
    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def logdensity(x):
        mu, log_tau, theta = x[0], x[1], x[2:]
        prior = -(mu**2) / 50 - jnp.log1p(jnp.exp(2 * log_tau) / 25) + log_tau
        schools = -0.5 * jnp.sum((theta - mu) ** 2) * jnp.exp(-2 * log_tau) - 8 * log_tau
        return prior + schools - 0.5 * jnp.sum(((theta - y) / sigma) ** 2)

    log_tau = np.linspace(-25, 12, 20001)
    tau2 = np.exp(2 * log_tau)[:, None]
    spread = tau2 + sigma**2
    precision = 1 / 25 + (1 / spread).sum(1)
    mu_mean, mu_variance = (y / spread).sum(1) / precision, 1 / precision
    log_weight = log_tau - np.log1p(tau2[:, 0] / 25) - 0.5 * np.log(spread).sum(1) - 0.5 * np.log(precision)
    log_weight += 0.5 * mu_mean**2 * precision - 0.5 * (y**2 / spread).sum(1)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    share = sigma**2 / spread  # theta_j given mu is N(share mu + (1 - share) y, (1 - share) sigma^2)
    theta_mean = share * mu_mean[:, None] + (1 - share) * y
    theta_variance = (1 - share) * sigma**2 + share**2 * mu_variance[:, None]
    means = np.column_stack([mu_mean, log_tau, theta_mean])
    variances = np.column_stack([mu_variance, np.zeros_like(log_tau), theta_variance])
    mean = weight @ means
    return Target(logdensity, wide(10, 10.0), mean, weight @ (variances + means**2) - mean**2)


def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    """Standardised features with a constant column, (569, 31), and labels, of scikit-learn."""
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    return np.column_stack([np.ones(len(labels)), features]), labels


def logistic_density():
    """Log posterior of 31 coefficients with N(0, 1) priors."""
    features, labels = breast_cancer()

    def logdensity(w):
        logits = jnp.asarray(features, w.dtype) @ w
        return jnp.sum(jnp.asarray(labels, w.dtype) * logits - jax.nn.softplus(logits)) - 0.5 * jnp.sum(w**2)

    return logdensity


def logistic() -> Target:
    """Bayesian logistic regression on the breast cancer data; moments of a long run of NUTS (benchmarks/truth.py)."""
    truth = json.loads(LONG_RUN.read_text())
    return Target(logistic_density(), wide(31, 10.0), np.array(truth["mean"]), np.array(truth["variance"]))
