"""A funnel and a curved valley with exact draws, and how far a flow fitted to some of them is from their law."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats


def neck(key, dim=5):
    """Neal's funnel as a hierarchy: v ~ N(0, 9), a mean m ~ N(0, 1), and the others N(m, exp(v))."""
    v, m, *z = jax.random.normal(key, (dim,))
    return jnp.concatenate([jnp.array([m, 3 * v]), m + jnp.exp(1.5 * v) * jnp.array(z)])


def neck_log_prob(x):
    m, v = x[:, 0], x[:, 1]
    others = stats.norm(m[:, None], np.exp(v / 2)[:, None]).logpdf(x[:, 2:]).sum(1)
    return stats.norm(0, 3).logpdf(v) + stats.norm.logpdf(m) + others


def misfit(flow, train, heldout, truth, where):
    """Parameters fitted to `train`, and log p - log q at the rows of `where`."""
    ones = jnp.ones(len(train))
    start = jax.jit(flow.init)(jax.random.key(0), train[0])
    params = jax.jit(flow.fit)(jax.random.key(1), start, train, ones, heldout, ones[: len(heldout)])
    log_q = jax.jit(jax.vmap(flow.log_prob, (None, 0)))(params, jnp.asarray(where))
    return params, truth(np.asarray(where)) - np.asarray(log_q)


def valley(key, width=0.3):
    """u, w = u^2 + noise, v = w^2 + noise, and one that has no part in it; in the order v, u, other, w."""
    u, w, v, other = jax.random.normal(key, (4,))
    w = (1 + u) ** 2 + width * w
    return jnp.stack([w**2 + width * v, u, 5 + 2 * other, w])


def valley_log_prob(x):
    v, u, other, w = x.T
    ridge = stats.norm((1 + u) ** 2, 0.3).logpdf(w) + stats.norm(w**2, 0.3).logpdf(v)
    return stats.norm.logpdf(u) + stats.norm(5, 2).logpdf(other) + ridge
