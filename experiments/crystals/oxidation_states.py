"""Common oxidation states of the elements, and whether a composition can be neutral with them."""

import itertools
import operator

import gemmi
import numpy as np
from numpy.typing import NDArray

_STATES = """
H 1 -1; Li 1; Be 2; B 3; C 4 -4 2; N -3 3 5; O -2; F -1; Na 1; Mg 2; Al 3; Si 4 -4; P -3 3 5; S -2 4 6; Cl -1 5 7; K 1;
Ca 2; Sc 3; Ti 4 3 2; V 5 4 3 2; Cr 3 6 2; Mn 2 3 4 7; Fe 2 3; Co 2 3; Ni 2 3; Cu 1 2; Zn 2; Ga 3; Ge 4 2 -4; As -3 3 5;
Se -2 4 6; Br -1 5; Rb 1; Sr 2; Y 3; Zr 4; Nb 5 4 3; Mo 6 4 5; Tc 7 4; Ru 3 4; Rh 3; Pd 2 4; Ag 1; Cd 2; In 3 1;
Sn 4 2; Sb -3 3 5; Te -2 4 6; I -1 5 7; Cs 1; Ba 2; La 3; Ce 3 4; Pr 3; Nd 3; Pm 3; Sm 3 2; Eu 3 2; Gd 3; Tb 3 4; Dy 3;
Ho 3; Er 3; Tm 3; Yb 3 2; Lu 3; Hf 4; Ta 5; W 6 4; Re 7 4; Os 4; Ir 4 3; Pt 4 2; Au 3 1; Hg 2 1; Tl 1 3; Pb 2 4; Bi 3 5;
Po 4 2; Ra 2; Ac 3; Th 4; Pa 5; U 6 4 5; Np 5 4; Pu 4 3; Am 3; Cm 3; Bk 3; Cf 3
"""
_COMMON = {
    gemmi.Element(name).atomic_number: tuple(map(int, states))
    for name, *states in (entry.split() for entry in _STATES.split(";"))
}


def balanced(numbers: NDArray[np.int64]) -> bool:
    """Return whether one common oxidation state for each element makes the charges add up to 0.

    Elements alone, and compounds of metals alone, count as balanced, as in the usual measure of validity (Davies et
    al., Computational Screening of All Stoichiometric Inorganic Materials, 2016, doi:10.1016/j.chempr.2016.09.010),
    whose table of states is larger and which looks at electronegativities too.

    Args:
        numbers: atomic numbers ``(k,)``.
    """
    elements, counts = np.unique(numbers, return_counts=True)
    if len(elements) == 1 or all(gemmi.Element(int(z)).is_metal for z in elements):
        return True
    choices = [_COMMON.get(int(z), ()) for z in elements]
    return any(sum(map(operator.mul, states, counts.tolist())) == 0 for states in itertools.product(*choices))
