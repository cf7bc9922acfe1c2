"""Runge-Kutta methods: tableaux as data, and the coordinates of their steps."""
