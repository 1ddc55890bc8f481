"""Chains over many devices: positions are split along the chain axis, everything learned is on every device.

`shard_chains` places the positions; from there on the computation follows them. A round needs no communication but for
gathering the chains' new places, on which all devices then train the same flow in the same order: the draws do not
depend on how many devices there are. Nothing here is active without a mesh.
"""

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from flowmcmc.base import PyTree, num_chains
from flowmcmc.ground.arguments import describe_value
from flowmcmc.ground.sharding import CHAINS

__all__ = ["chain_mesh", "check_mesh", "mesh_of", "shard_chains"]


def chain_mesh(devices=None) -> Mesh:
    """A mesh of one axis for `sample` and `shard_chains`.

    Parameters
    ----------
    devices
        A sequence of JAX devices; None means all, those of other processes too (``jax.distributed.initialize``).

    Returns
    -------
    jax.sharding.Mesh
        All `devices` along one axis, named ``"chains"``.

    Raises
    ------
    TypeError
        If they are no devices.
    """
    if devices is not None and not all(isinstance(device, jax.Device) for device in devices):
        raise TypeError(f"devices must be JAX devices, such as jax.devices()[:2]; got {describe_value(devices)}.")
    return Mesh(np.array(jax.devices() if devices is None else devices), (CHAINS,), axis_types=(AxisType.Auto,))


def shard_chains(positions: PyTree, mesh: Mesh) -> PyTree:
    """Positions with their leading axis split over the devices of `mesh`; `run` then works on all of them.

    Parameters
    ----------
    positions
        Chain axis first; on several processes, the same values on each.
    mesh
        Of `chain_mesh`.

    Returns
    -------
    PyTree
        The same numbers as JAX arrays, leaves (chain, ...), with the chain axis split evenly over the devices.

    Raises
    ------
    TypeError, ValueError
        If the chains cannot be split evenly, or the mesh is not one of `chain_mesh`.
    """
    check_mesh(num_chains(positions), mesh)
    return jax.device_put(positions, NamedSharding(mesh, PartitionSpec(CHAINS)))


def check_mesh(chains: int, mesh: Mesh) -> None:
    """Raise unless it is a mesh of `chain_mesh`, over which so many chains can be split evenly."""
    if not isinstance(mesh, (Mesh, AbstractMesh)):
        raise TypeError(f"mesh must be one of flowmcmc.chain_mesh(), got {describe_value(mesh)}.")
    if mesh.axis_names != (CHAINS,):
        raise ValueError(f"mesh must have the one axis {CHAINS!r}, got {mesh.axis_names}: use flowmcmc.chain_mesh().")
    if chains % mesh.size:
        nearest = max(1, round(chains / mesh.size)) * mesh.size
        raise ValueError(f"{chains} chains cannot be split evenly over {mesh.size} devices: use {nearest}, say.")


def mesh_of(positions: PyTree) -> Mesh | None:
    """The mesh that positions were placed on, if any."""
    leaves = jax.tree.leaves(positions)
    sharding = getattr(leaves[0], "sharding", None) if leaves else None
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) and mesh.axis_names == (CHAINS,) else None
