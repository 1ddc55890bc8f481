"""The landscape that is drawn is the model's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ebm


def trained(dim, energy=lambda theta, x: theta * jnp.sum(x["a"] ** 4)):
    """A model whose energy is known; no steps of training change it by much."""
    position = {"a": jnp.zeros(dim)}
    model = ebm.Model(lambda rng_key: jnp.ones(()), energy, ebm.normal(position))
    data = {"a": jax.random.normal(jax.random.key(0), (300, dim))}
    return ebm.fit(0, model, data, ebm.nce(model, ebm.normal(position)), num_steps=1, progress_bar=False)


def test_two_dimensions_are_shown_whole(tmp_path):
    fit = trained(2)
    figure = ebm.plot_energy(fit, tmp_path / "energy.png", num=40, coordinates=["a[1]", "a[0]"])
    density, energy = figure.axes[:2]
    assert (density.get_xlabel(), density.get_ylabel()) == ("a[1]", "a[0]")
    # corners of cells, then their centres
    corners = np.asarray(energy.collections[0].get_coordinates())
    centres = (corners[:-1, :-1] + corners[1:, 1:]) / 2
    theta = float(fit.theta)
    expected = theta * (centres**4).sum(-1)
    np.testing.assert_allclose(energy.collections[0].get_array(), expected, rtol=1e-4, atol=1e-6)
    log_p = -expected - 0.5 * (centres**2).sum(-1)
    np.testing.assert_allclose(density.collections[0].get_array(), log_p - log_p.max(), rtol=1e-4, atol=1e-6)
    assert len(density.collections[-1].get_offsets()) == 300
    assert figure.get_suptitle() == "" and (tmp_path / "energy.png").stat().st_size > 10_000


def test_more_dimensions_are_called_a_slice():
    fit = trained(5)
    at = {"a": jnp.arange(5.0)}
    figure = ebm.plot_energy(fit, num=10, coordinates=["a[1]", "a[4]"], at=at)
    assert figure.get_suptitle().startswith("a slice of 5 dimensions: all coordinates but a[1] and a[4]")
    lowest = float(figure.axes[1].collections[0].get_array().min())
    np.testing.assert_allclose(lowest, float(fit.theta) * (2**4 + 3**4), rtol=0.05)
    assert len(figure.axes[0].collections[-1].get_offsets()) == 0  # points are not in the slice


def test_one_dimension_is_a_normalised_curve():
    curve = ebm.plot_energy(trained(1)).axes[0].lines[0]
    np.testing.assert_allclose(np.trapezoid(curve.get_ydata(), curve.get_xdata()), 1, atol=1e-2)


def test_what_cannot_be_drawn_is_refused():
    fit = trained(3)
    with pytest.raises(ValueError, match=r"got \['b'\]"):
        ebm.plot_energy(fit, coordinates=["b"])
    with pytest.raises(ValueError, match="2 of the 3"):
        ebm.plot_energy(fit, coordinates=["a[0]", "a[0]"])
    nowhere = {"a": jnp.full((4, 3), jnp.inf)}
    with pytest.raises(ValueError, match="no finite density"):
        ebm.plot_energy(fit, points=nowhere)


def test_a_path_that_cannot_be_written_is_refused_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        ebm.plot_energy(None, tmp_path / "nowhere" / "energy.png")
