"""Whether a trained model is right: likelihood brackets, tests against data, pictures."""
