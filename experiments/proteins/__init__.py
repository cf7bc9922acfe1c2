"""Protein backbones: a flow on SE(3)^N for all lengths; ``python -m experiments.proteins --help``."""
