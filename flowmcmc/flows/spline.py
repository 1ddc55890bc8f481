r"""The monotone rational-quadratic spline as an elementwise bijection.

On [-B, B] the map is a piecewise ratio of quadratics through knots (x_k, y_k) with slopes d_k; outside it is the
identity. With xi the place within a bin of width w, height h and mean slope s = h / w,

    y = y_k + h (s xi^2 + d_k xi (1 - xi)) / (s + (d_{k+1} + d_k - 2 s) xi (1 - xi)).

Reference: Durkan, Bekasov, Murray, Papamakarios, arXiv 1906.04032, equations 4 to 8.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp

from flowmcmc.flows.coupling import Elementwise

__all__ = ["rational_quadratic"]

PARAMETER_BOUND = 3.0  # of the absolute values of the parameters
MIN_BIN = 1e-2  # smallest bin relative to the average, and smallest slope: bounds the log derivative
SLOPE_AT_ZERO = 0.5413248546129181  # softplus(this) = 1


@lru_cache(maxsize=64)
def rational_quadratic(num_bins: int, bound: float) -> Elementwise:
    """Spline with `num_bins` bins on [-bound, bound]; slope one at the ends, so the tails join smoothly."""

    def knots(numbers):
        # otherwise the steepest splines cannot be inverted in float32
        numbers = PARAMETER_BOUND * jnp.tanh(numbers / PARAMETER_BOUND)
        widths = shares(numbers[:num_bins])
        heights = shares(numbers[num_bins : 2 * num_bins])
        inner = MIN_BIN + (1 - MIN_BIN) * jax.nn.softplus(numbers[2 * num_bins :] + SLOPE_AT_ZERO)
        one = jnp.ones((1,), numbers.dtype)
        return edges(widths), edges(heights), jnp.concatenate([one, inner, one])

    def shares(numbers):
        return MIN_BIN / num_bins + (1 - MIN_BIN) * jax.nn.softmax(numbers)

    def edges(sizes):
        inner = bound * (2 * jnp.cumsum(sizes)[:-1] - 1)
        ends = jnp.array([-bound, bound], sizes.dtype)
        return jnp.concatenate([ends[:1], inner, ends[1:]])

    def bin_at(places, xs, ys, slopes, value):
        k = jnp.clip(jnp.sum(value >= places) - 1, 0, num_bins - 1)
        width, height = xs[k + 1] - xs[k], ys[k + 1] - ys[k]
        return xs[k], ys[k], width, height, height / width, slopes[k], slopes[k + 1]

    def log_slope(xi, s, d0, d1):
        curve = xi * (1 - xi)
        numerator = d1 * xi**2 + 2 * s * curve + d0 * (1 - xi) ** 2
        return 2 * jnp.log(s) + jnp.log(numerator) - 2 * jnp.log(s + (d0 + d1 - 2 * s) * curve)

    def forward(numbers, x):
        xs, ys, slopes = knots(numbers)
        inside = jnp.clip(x, -bound, bound)
        x0, y0, width, height, s, d0, d1 = bin_at(xs, xs, ys, slopes, inside)
        xi = (inside - x0) / width
        curve = xi * (1 - xi)
        y = y0 + height * (s * xi**2 + d0 * curve) / (s + (d0 + d1 - 2 * s) * curve)
        is_inside = jnp.abs(x) < bound
        return jnp.where(is_inside, y, x), jnp.where(is_inside, log_slope(xi, s, d0, d1), 0.0)

    def inverse(numbers, y):
        xs, ys, slopes = knots(numbers)
        inside = jnp.clip(y, -bound, bound)
        x0, y0, width, height, s, d0, d1 = bin_at(ys, xs, ys, slopes, inside)
        rise, bend = inside - y0, d0 + d1 - 2 * s
        a = height * (s - d0) + rise * bend
        b = height * d0 - rise * bend
        c = -s * rise
        root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0.0) + jnp.finfo(y.dtype).tiny)
        xi = jnp.clip(2 * c / (-b - root), 0.0, 1.0)
        is_inside = jnp.abs(y) < bound
        x = jnp.where(is_inside, x0 + xi * width, y)
        return x, jnp.where(is_inside, -log_slope(xi, s, d0, d1), 0.0)

    return Elementwise(3 * num_bins - 1, forward, inverse)
