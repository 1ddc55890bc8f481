"""What a round is, and how a sampler learns while it runs; reading order: rounds, training, adaptive."""
