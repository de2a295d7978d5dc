"""Drawing: grids of pictures, points, and the style of figures. Knows no runs."""
