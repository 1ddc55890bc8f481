"""Log densities from models of other libraries and from constrained parameters; one file each."""
