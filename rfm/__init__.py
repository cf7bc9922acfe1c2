"""Riemannian flow matching on PyTorch."""
