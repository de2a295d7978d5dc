"""Shared foundations: errors, atomic files, checks of fields, registries, randomness, devices."""
