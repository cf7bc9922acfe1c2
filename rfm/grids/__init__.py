"""Densities on grids."""
