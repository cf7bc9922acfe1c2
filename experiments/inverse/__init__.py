"""Posterior draws of every method against exact ones, where the posterior is known."""
