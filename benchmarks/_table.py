"""All targets by name."""

from _fields import many_well, phi4_chain, phi4_plane
from _posteriors import eight_schools, logistic, student
from _targets import banana, eight_gaussians, funnel, laplace, rings, rosenbrock, scales, two_gaussians

TARGETS = {
    "two_gaussians_2": lambda: two_gaussians(2),
    "two_gaussians_16": lambda: two_gaussians(16),
    "two_gaussians_32": lambda: two_gaussians(32),
    "two_gaussians_64": lambda: two_gaussians(64),
    "eight_gaussians": eight_gaussians,
    "rings": rings,
    "funnel_10": funnel,
    "banana_10": banana,
    "rosenbrock_10": rosenbrock,
    "scales_13": scales,
    "laplace_20": laplace,
    "student_10": student,
    "many_well_32": many_well,
    "logistic_31": logistic,
    "eight_schools_10": eight_schools,
    "phi4_chain_64": phi4_chain,
    "phi4_plane_64": phi4_plane,
}
