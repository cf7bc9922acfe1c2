"""Image to orientation: the distribution of a symmetric body's pose given one picture of it."""
