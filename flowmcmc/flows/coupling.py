r"""A stack of coupling layers: an invertible map of vectors that starts at the identity.

A layer keeps the coordinates its mask marks and transforms each of the others, elementwise, by a bijection whose
parameters come from a small network fed with the kept ones; so its inverse costs one pass too, and its log determinant
is a sum. All layers have one shape and run in a `lax.scan`: compile time does not grow with depth.
Reference: Dinh et al., arXiv 1605.08803 (affine); Durkan et al., arXiv 1906.04032 (splines).
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.base import Array, PyTree

__all__ = ["Coupling", "Elementwise", "affine", "coupling"]


class Elementwise(NamedTuple):
    """A scalar bijection with `num_params` unconstrained parameters; all zero must mean the identity.

    `forward` and `inverse` map ``(numbers, x) -> (y, log|dy/dx|)``, with parameters `numbers` of shape (num_params,).
    """

    num_params: int
    forward: Callable[[Array, Array], tuple[Array, Array]]
    inverse: Callable[[Array, Array], tuple[Array, Array]]


class Coupling(NamedTuple):
    """`init(rng_key) -> params`; `forward` and `inverse` map ``(params, x) -> (y, log|det dy/dx|)``."""

    init: Callable[[Array], PyTree]
    forward: Callable[[PyTree, Array], tuple[Array, Array]]
    inverse: Callable[[PyTree, Array], tuple[Array, Array]]


def coupling(dim: int, elementwise: Elementwise, *, num_layers: int, hidden: int, dtype) -> Coupling:
    """Stack `num_layers` coupling layers on vectors of length `dim`.

    Parameters
    ----------
    dim
        Length of the vectors, from 1 up; at 1 the map is elementwise with free parameters.
    elementwise
        The scalar bijection.
    num_layers
        Number of layers; two for each binary digit of `dim` let every coordinate act on every other.
    hidden
        Width of the two hidden layers of each conditioner.
    dtype
        Floating dtype of parameters and computation.
    """
    masks = alternating_masks(dim, num_layers)
    sizes = (dim, hidden, dim * elementwise.num_params, dtype)

    def init(rng_key):
        # flax takes half a second to import, so only flows with layers import it
        from flowmcmc.flows import conditioner

        return jax.vmap(partial(conditioner.init, sizes))(jax.random.split(rng_key, num_layers))

    def scan_layers(transform, params, x, reverse):
        from flowmcmc.flows import conditioner

        def layer(carry, inputs):
            x, log_det = carry
            layer_params, mask = inputs
            # arcsinh tames heavy tails, which the network would extrapolate wildly
            kept = 3 * jnp.arcsinh(jnp.where(mask, x, 0.0) / 3)
            numbers = conditioner.apply(sizes, layer_params, kept).reshape(dim, elementwise.num_params)
            y, log_derivative = jax.vmap(transform)(numbers, x)
            log_det = log_det + jnp.sum(jnp.where(mask, 0.0, log_derivative))
            return (jnp.where(mask, x, y), log_det), None

        start = (x, jnp.zeros((), x.dtype))
        (y, log_det), _ = jax.lax.scan(layer, start, (params, masks), reverse=reverse)
        return y, log_det

    return Coupling(
        init,
        lambda params, x: scan_layers(elementwise.forward, params, x, False),
        lambda params, x: scan_layers(elementwise.inverse, params, x, True),
    )


@lru_cache(maxsize=64)
def affine(bound: float = 3.0) -> Elementwise:
    """Shift and scale, the log scale bounded by +-`bound` so that float32 round trips stay accurate."""

    def log_scale(number):
        return bound * jnp.tanh(number / bound)

    def forward(numbers, x):
        return x * jnp.exp(log_scale(numbers[1])) + numbers[0], log_scale(numbers[1])

    def inverse(numbers, y):
        return (y - numbers[0]) * jnp.exp(-log_scale(numbers[1])), -log_scale(numbers[1])

    return Elementwise(2, forward, inverse)


def alternating_masks(dim: int, num_layers: int) -> np.ndarray:
    """Shape (num_layers, dim), True where a coordinate is kept.

    Layers 2b and 2b + 1 split the coordinates by bit b of their index and transform either half given the other. Any
    two indices differ in some bit, so with two layers for each bit every coordinate acts directly on every other.
    """
    if dim == 1:
        return np.zeros((num_layers, 1), bool)
    num_bits = (dim - 1).bit_length()
    layers = np.arange(num_layers)[:, None]  # in NumPy, so that nothing is compiled
    bits = (np.arange(dim)[None] >> (layers // 2 % num_bits)) & 1
    return bits == layers % 2
