"""Surfaces made of triangles."""
