from cylinder import Cylinder
from cylinder_first_try import Cylinder as FirstTry
from cylinder_second_try import Cylinder as SecondTry

from manifolds.testing import check_manifold

for attempt in (FirstTry, SecondTry):
    report = check_manifold(attempt())
    print(report)
    assert not report.passed

check_manifold(Cylinder()).raise_if_failed()
