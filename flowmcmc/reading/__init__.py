"""Reading of a finished run: DataTree, modes, weights, evidence and verdict. Nothing here moves a chain."""
