"""Imitation of handwriting: flows of action chunks in the plane, on the sphere and on SE(3), beside other policies."""
