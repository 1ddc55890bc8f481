"""The host loop: compiled chunks of rounds, interruption, and folders that a run goes on from."""
