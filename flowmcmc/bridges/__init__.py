"""Models of other libraries, and constrained parameters, as densities; one file each."""
