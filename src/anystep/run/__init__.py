"""A run on disk, without training: its config, its facts, its checkpoints, its weights."""
