"""Figures from arrays: grids of images, points, and the style of curves."""
