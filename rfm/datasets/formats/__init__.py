"""Readers of files that are no text tables: one file for each family of formats, each turns bytes into a table."""
