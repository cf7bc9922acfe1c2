"""Comparisons with other libraries, each a command that prints a table."""
