"""Where negatives come from: Markov chains, Langevin moves, weighted draws. Each is a `NegativeSampler`."""
