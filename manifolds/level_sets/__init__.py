"""Surfaces known by an equation, and the ellipsoid."""
