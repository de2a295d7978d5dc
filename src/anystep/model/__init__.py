"""A trained network that is ready to sample from."""
