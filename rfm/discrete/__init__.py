"""Discrete flow matching: sequences of labels, by jumps instead of velocities.

`MixturePath` replaces positions of noise by those of data, one by one, as time goes from 0 to 1. A network learns the
posterior of each label of the data given what is visible so far, by cross-entropy; `DiscreteFlow` draws sequences by
the jumps that carry the noise along the path, and has the exact law of its draws where all sequences can be enumerated.
`JointFlow` draws labels together with a point of a manifold, such as the types of a crystal's atoms with their places.

References:
    Campbell, Yim, Barzilay, Rainforth, Jaakkola, Generative Flows on Discrete State-Spaces: Enabling Multimodal Flows
    with Applications to Protein Co-Design, 2024, arXiv:2402.04997. Gat, Remez, Shaul, Kreuk, Chen, Synnaeve, Adi,
    Lipman, Discrete Flow Matching, 2024, arXiv:2407.15595.
"""

from rfm.discrete.enumeration import every_sequence, exact_posterior, total_variation
from rfm.discrete.fitting import fit
from rfm.discrete.flow import DiscreteFlow
from rfm.discrete.joint import JointFlow, JointLosses, JointNetwork, Labelled
from rfm.discrete.joint_fitting import fit_joint
from rfm.discrete.mixture_path import MaskedLabels, MixturePath, UniformLabels
from rfm.discrete.posterior_network import PosteriorNetwork

__all__ = [
    "DiscreteFlow",
    "JointFlow",
    "JointLosses",
    "JointNetwork",
    "Labelled",
    "MaskedLabels",
    "MixturePath",
    "PosteriorNetwork",
    "UniformLabels",
    "every_sequence",
    "exact_posterior",
    "fit",
    "fit_joint",
    "total_variation",
]
