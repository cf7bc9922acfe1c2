"""Manifolds made of others: products, powers, quotients, scaled and ragged ones."""
