"""What a run looks like: grids of samples, curves, and one HTML page that holds it all."""
