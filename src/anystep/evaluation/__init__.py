"""How good the samples are: features, metrics, and the record that goes with a score.

A score without its protocol cannot be compared; `evaluate` never gives one without the other.
"""
