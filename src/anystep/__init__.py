"""One network, any number of steps."""
