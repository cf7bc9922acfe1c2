"""Couplings: which source point is paired with which data point.

==================== =========================================================================================
`Independent`        none: points are paired as they were drawn
`OptimalTransport`   the pairing of least total squared geodesic distance in a batch
`Sinkhorn`           the same, blurred, in a fixed kind of work that a GPU does well: for batches of thousands there
`UnbalancedSinkhorn` likewise, but points without a counterpart take little part: from data to data of other mass
==================== =========================================================================================

**Conditional models.** A field that is given the condition learns to carry the full source to the data of that
condition. So sources must not depend on conditions, which plain optimal transport in a batch makes them do: each
condition's data take the sources that lie nearest to them, and at sampling time the others lead nowhere. A coupling
that is given conditions therefore lets each source point keep the condition of the target that it was drawn beside,
which says nothing about it, and charges ``condition_weight`` times the squared difference for a pair with another
condition: by default infinity, that is, transport among targets of equal condition only. Then sources given the
condition have their own distribution exactly. Where every condition is different this pairs independently: there, a
finite weight lets neighbouring conditions share their sources; the error this makes is as small as the differences
allowed.

References:
    Cheng, Schwing: The Curse of Conditions: Analyzing and Improving Optimal Transport for Conditional Flow-Based
    Generation, 2025, arXiv:2503.10636 (the bias, and the cost on conditions).
"""

from rfm.couplings.assignment import assignment
from rfm.couplings.coupling import Coupling, Independent, Pairs
from rfm.couplings.transport import OptimalTransport, Sinkhorn
from rfm.couplings.unbalanced import UnbalancedSinkhorn

__all__ = ["Coupling", "Independent", "OptimalTransport", "Pairs", "Sinkhorn", "UnbalancedSinkhorn", "assignment"]
