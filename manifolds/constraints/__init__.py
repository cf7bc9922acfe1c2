"""Sets with a border, for `manifolds.Bounded`: a file for each kind."""
