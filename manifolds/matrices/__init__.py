"""Manifolds of matrices: positive definite and correlation matrices, frames and subspaces."""
