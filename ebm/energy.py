"""Networks for the energy, each a pair of plain functions ``init(rng_key) -> theta``, ``energy(theta, position)``.

Any function of (theta, position) is an energy; these are the usual ones, as flax modules in their functional form. The
last layer starts at zero, so that training starts at the tilt.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.flatten_util import ravel_pytree

__all__ = ["Energy", "conv", "mlp"]


class Energy(NamedTuple):
    """``init(rng_key) -> theta`` and ``energy(theta, position) -> scalar``; a `Model` is these and a tilt."""

    init: Callable
    energy: Callable


leaky_relu = partial(jax.nn.leaky_relu, negative_slope=0.05)


class MLP(nnx.Module):
    """Dense layers, the last to one number."""

    def __init__(self, sizes, activation, dtype, *, rngs):
        linear = partial(nnx.Linear, dtype=dtype, param_dtype=dtype, rngs=rngs)
        self.hidden = nnx.List([linear(a, b) for a, b in pairwise(sizes)])
        self.last = linear(sizes[-1], 1, use_bias=False, kernel_init=nnx.initializers.zeros)
        self.activation = activation

    def __call__(self, x):
        for layer in self.hidden:
            x = self.activation(layer(x))
        return self.last(x)[0]


class Conv(nnx.Module):
    """Strided 3x3 convolutions, then a mean over pixels and one linear layer."""

    def __init__(self, channels, activation, dtype, *, rngs):
        options = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.layers = nnx.List([nnx.Conv(a, b, (3, 3), strides=2, **options) for a, b in pairwise(channels)])
        self.last = nnx.Linear(channels[-1], 1, use_bias=False, kernel_init=nnx.initializers.zeros, **options)
        self.activation = activation

    def __call__(self, image):
        for layer in self.layers:
            image = self.activation(layer(image))
        return self.last(jnp.mean(image, axis=(0, 1)))[0]


def mlp(
    position, *, hidden: Sequence[int] = (32, 64, 64), activation: Callable = leaky_relu, loc=0.0, scale=1.0
) -> Energy:
    """Multilayer perceptron on the raveled position; the defaults are the network of arXiv 2306.00684.

    Parameters
    ----------
    position
        One position: gives shapes and dtype.
    hidden
        Widths. A first layer narrower than the data cannot shape every direction: the rest keeps the tilt's.
    activation
        Between layers; smooth ones (``jax.nn.silu``) give smooth forces. Default leaky ReLU with slope 0.05.
    loc, scale
        The network sees (x - loc) / scale.

    Returns
    -------
    Energy
        ``init(rng_key) -> theta``, a dict of arrays, and ``energy(theta, position)``, a scalar in nats, zero at the
        start.

    Raises
    ------
    TypeError, ValueError
        If `position` is not floating, `scale` not positive, or a width below one.
    """
    vector = ravel_pytree(position)[0]
    if not jnp.issubdtype(vector.dtype, jnp.floating):
        raise TypeError(f"position must be made of floating arrays, got dtype {vector.dtype}: convert it.")
    if not bool(jnp.all(jnp.asarray(scale) > 0)) or jnp.shape(scale) not in ((), (1,), vector.shape):
        raise ValueError(f"scale must be positive, one number or one for each of {vector.size} coordinates.")
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden must name at least one layer, each with at least one unit; got {tuple(hidden)}.")
    module = functional(lambda rngs: MLP((vector.size, *hidden), activation, vector.dtype, rngs=rngs))
    return Energy(module.init, lambda theta, x: module.energy(theta, (ravel_pytree(x)[0] - loc) / scale))


def conv(position, *, channels: Sequence[int] = (32, 64, 64), activation: Callable = jax.nn.silu) -> Energy:
    """Small convolutional energy of images (height, width, channels), half the resolution at each layer.

    Parameters
    ----------
    position
        One image; gives the shape and dtype.
    channels
        Of each layer.
    activation
        After each layer; smooth, if the loss or the kernel takes gradients in positions.

    Returns
    -------
    Energy
        ``init(rng_key) -> theta``, a dict of arrays, and ``energy(theta, position)``, a scalar in nats, zero at the
        start.

    Raises
    ------
    ValueError
        If `position` does not have three axes.
    """
    if jnp.ndim(position) != 3:
        raise ValueError(f"position must be one image (height, width, channels), got shape {jnp.shape(position)}.")
    image = jnp.asarray(position)
    if not channels or min(channels) < 1:
        raise ValueError(f"channels must name at least one layer, each with at least one; got {tuple(channels)}.")
    return functional(lambda rngs: Conv((image.shape[2], *channels), activation, image.dtype, rngs=rngs))


def functional(build: Callable) -> Energy:
    """A flax module as two pure functions, ``init(rng_key)`` and ``energy(theta, x)``."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    def init(rng_key):
        return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(rng_key)), nnx.Param))

    return Energy(init, lambda theta, x: nnx.merge(graphdef, theta)(x))
