"""Base distributions: where a flow starts.

====================== ======================================================
`Uniform`              every manifold of finite volume
`WrappedNormal`        Euclidean, hyperbolic, positive definite, flat torus
`VonMisesFisher`       spheres
`IsotropicGaussianSO3` rotations
`KernelMixture`        every manifold with a kernel, fitted to data
`MeshDensity`          meshes, fitted to data
`RigidMotionSource`    rigid motions
`CentredPoseSource`    several rigid bodies up to a translation
`ProductSource`        products
`PowerSource`          powers
`PaddedSource`         products of which points have some factors
`RaggedSource`         products of several numbers of factors
`ScaledSource`         scaled manifolds
`PiecewiseUniform`     bounded sets of several components
`Truncated`            bounded sets, from a source on all of the manifold
`Empirical`            given points, on every manifold: it has no density
====================== ======================================================

`StratifiedKernels` are kernel densities given a condition, whose points `Strata` divide.
`default_source` chooses one from the data. `kernel_concentrations` says how wide kernels may be about given points, and
`likeliest_weights` how much each component of a mixture weighs.
"""

from rfm.sources.base import Source, Uniform
from rfm.sources.centred_poses import CentredPoseSource
from rfm.sources.default import default_source
from rfm.sources.empirical import Empirical
from rfm.sources.isotropic_gaussian_so3 import IsotropicGaussianSO3
from rfm.sources.kernel_mixture import KernelMixture
from rfm.sources.kernel_widths import kernel_concentrations
from rfm.sources.mesh_density import MeshDensity
from rfm.sources.mixture_weights import likeliest_weights
from rfm.sources.padded import PaddedSource
from rfm.sources.piecewise_uniform import PiecewiseUniform
from rfm.sources.product import PowerSource, ProductSource
from rfm.sources.ragged import RaggedSource
from rfm.sources.rigid_motion import RigidMotionSource
from rfm.sources.scaled import ScaledSource
from rfm.sources.strata import Strata
from rfm.sources.stratified_kernels import StratifiedKernels, stratified_concentrations
from rfm.sources.truncated import Truncated
from rfm.sources.von_mises_fisher import VonMisesFisher
from rfm.sources.wrapped_normal import WrappedNormal, wrapped_log_density

__all__ = [
    "CentredPoseSource",
    "Empirical",
    "IsotropicGaussianSO3",
    "KernelMixture",
    "MeshDensity",
    "PaddedSource",
    "PiecewiseUniform",
    "PowerSource",
    "ProductSource",
    "RaggedSource",
    "RigidMotionSource",
    "ScaledSource",
    "Source",
    "Strata",
    "StratifiedKernels",
    "Truncated",
    "Uniform",
    "VonMisesFisher",
    "WrappedNormal",
    "default_source",
    "kernel_concentrations",
    "likeliest_weights",
    "stratified_concentrations",
    "wrapped_log_density",
]
