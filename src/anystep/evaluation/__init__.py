"""How good the samples are: a trained network to draw from, features, distances, and the record that goes with a score.

A score without its protocol cannot be compared; `evaluate` never gives one without the other.
"""
