"""Steps with noise: random walks on a manifold, and the equation that keeps the marginals of a flow."""
