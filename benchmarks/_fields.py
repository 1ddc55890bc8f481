"""Targets with many modes and a truth from quadrature: lattice fields and a product of wells."""

import jax.numpy as jnp
import numpy as np
from _targets import Target, wide

GRID = np.linspace(-3.0, 3.0, 1201)


def phi4_chain(dim: int = 64, a: float = 0.1, beta: float = 20.0) -> Target:
    """The field on an interval of arXiv 2105.12603, zero at both ends, mean near +1 or -1 with weight 1/2 each:

    log p = -beta (a dim / 2 sum_i (x_i+1 - x_i)^2 + 1 / (4 a dim) sum_i (1 - x_i^2)^2)

    By symmetry its means are zero; the variances are those of a chain of neighbours, by transfer matrices.
    """

    def logdensity(x):
        steps = jnp.diff(jnp.pad(x, 1))
        return -beta * (a * dim / 2 * jnp.sum(steps**2) + jnp.sum((1 - x**2) ** 2) / (4 * a * dim))

    pair = np.exp(-beta * a * dim / 2 * (GRID[:, None] - GRID) ** 2)
    single = np.exp(-beta * (1 - GRID**2) ** 2 / (4 * a * dim))
    end = np.exp(-beta * a * dim / 2 * GRID**2)
    messages = [end]
    for _ in range(dim - 1):
        message = pair @ (single * messages[-1])
        messages.append(message / message.max())
    marginals = [left * single * right for left, right in zip(messages, reversed(messages))]
    variance = np.array([(GRID**2 * m).sum() / m.sum() for m in marginals])
    modes = lambda x: (x.mean(-1) < 0).astype(int)
    return Target(logdensity, wide(dim, 2.0), np.zeros(dim), variance, modes, np.array([0.5, 0.5]))


def phi4_plane(side: int = 8, kappa: float = 0.4, coupling: float = 0.5) -> Target:
    """The phi^4 field on a periodic square lattice in its ordered phase, two modes of weight 1/2:

    log p = sum_x 2 kappa (x right + x below) - (1 - 2 lambda) x^2 - lambda x^4

    Means are zero by symmetry; nothing else is judged but the weights of the two signs of the mean field.
    """

    def logdensity(x):
        field = x.reshape(side, side)
        neighbours = jnp.roll(field, 1, 0) + jnp.roll(field, 1, 1)
        return jnp.sum(2 * kappa * field * neighbours - (1 - 2 * coupling) * field**2 - coupling * field**4)

    dim = side**2
    modes = lambda x: (x.mean(-1) < 0).astype(int)
    nothing = slice(0, 0)
    return Target(logdensity, wide(dim, 2.0), np.zeros(dim), np.ones(dim), modes, np.array([0.5, 0.5]), nothing)


def many_well(dim: int = 32) -> Target:
    """dim / 2 pairs (x, y), each with log p = -x^4 + 6 x^2 + x / 2 - y^2 / 2 (arXiv 2208.01893): 2^(dim / 2) modes.

    The weight of the first pair's right well is judged; pairs are independent, moments by quadrature.
    """

    def logdensity(x):
        x, y = x[::2], x[1::2]
        return jnp.sum(-(x**4) + 6 * x**2 + x / 2 - y**2 / 2)

    p = np.exp(-(GRID**4) + 6 * GRID**2 + GRID / 2)
    p /= p.sum()
    mean = (GRID * p).sum()
    means, variances = np.zeros(dim), np.ones(dim)
    means[::2], variances[::2] = mean, (GRID**2 * p).sum() - mean**2
    right = p[GRID > 0].sum() + p[GRID == 0].sum() / 2
    modes = lambda x: (x[:, 0] < 0).astype(int)
    return Target(logdensity, wide(dim, 3.0), means, variances, modes, np.array([right, 1 - right]))
