"""Training objectives, each a `Method` in a file of its own; all but `coop_flow` need no draws from the model."""
