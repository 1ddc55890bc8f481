"""What a finished run says: DataTree, modes, weights, evidence, and the verdict. Nothing here moves a chain."""
