"""What rounds say: the verdict on a run, its DataTree, modes, weights, evidence; warm-up asks `edges` and `waits` too.

Imports from base, ground, kernels, flows, running, adaptation and losses, never from choosing, which stands on it.
"""
