"""Inside compiled code: what is split along the chain axis and what is on every device. Without a mesh, nothing."""

import contextlib

import jax
from jax.sharding import Mesh, PartitionSpec

from flowmcmc.base import PyTree

__all__ = ["CHAINS", "mesh_context", "on_chains", "replicate"]

CHAINS = "chains"


def mesh_context(mesh: Mesh | None):
    """A context in which `on_chains` and `replicate` mean something."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def on_chains(tree: PyTree) -> PyTree:
    """Inside compiled code: split along the leading axis."""
    return constrain(tree, PartitionSpec(CHAINS))


def replicate(tree: PyTree) -> PyTree:
    """Inside compiled code: a whole copy for each device."""
    return constrain(tree, PartitionSpec())


def constrain(tree: PyTree, spec: PartitionSpec) -> PyTree:
    """Typed for whatever mesh is in use; the tree itself without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.lax.with_sharding_constraint(tree, spec) if CHAINS in mesh.axis_names else tree
