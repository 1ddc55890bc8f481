"""Transitions of one chain, shaped like BlackJAX's: ``init(position)`` and ``step(rng_key, state)``; and tempering."""
