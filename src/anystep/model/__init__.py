"""A trained network that is ready to draw from."""
