"""Curves and tables of scores, and an HTML page of runs."""
