"""Kernels of one chain in BlackJAX's form, ``init(position)`` and ``step(rng_key, state)``; and tempered SMC."""
