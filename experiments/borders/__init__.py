"""Densities on sets with a border: which mechanism keeps flows inside best, and real ones."""
