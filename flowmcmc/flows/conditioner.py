"""The small network inside a coupling layer, a flax module in its functional form."""

from functools import cache

from flax import nnx

from flowmcmc.base import Array, PyTree

__all__ = ["apply", "init"]


class Conditioner(nnx.Module):
    """Two hidden layers; the last layer starts at zero."""

    def __init__(self, dim, hidden, num_outputs, dtype, *, rngs):
        def linear(num_in, num_out, **options):
            return nnx.Linear(num_in, num_out, dtype=dtype, param_dtype=dtype, rngs=rngs, **options)

        self.first = linear(dim, hidden)
        self.second = linear(hidden, hidden)
        self.last = linear(hidden, num_outputs, kernel_init=nnx.initializers.zeros)

    def __call__(self, x):
        return self.last(nnx.silu(self.second(nnx.silu(self.first(x)))))


@cache
def graphdef(sizes: tuple) -> nnx.GraphDef:
    """Static structure of the network with sizes (dim, hidden, num_outputs, dtype)."""
    return nnx.graphdef(nnx.eval_shape(lambda: Conditioner(*sizes, rngs=nnx.Rngs(0))))


def init(sizes: tuple, rng_key: Array) -> PyTree:
    """Initial parameters of the network with these `sizes`."""
    return nnx.to_pure_dict(nnx.state(Conditioner(*sizes, rngs=nnx.Rngs(rng_key)), nnx.Param))


def apply(sizes: tuple, params: PyTree, x: Array) -> Array:
    """Output of the network at `x`, shape (num_outputs,)."""
    return nnx.merge(graphdef(sizes), params)(x)
