"""Scores of a set of samples against real ones, one a file."""
