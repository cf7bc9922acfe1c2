"""Few steps: what jumps of a flow map give, beside the equation that they were distilled from."""
