"""Saved objects as data: descriptions, files, fingerprints."""
