"""From a config to a trained network: the loop, its state, its checkpoints and its log."""
