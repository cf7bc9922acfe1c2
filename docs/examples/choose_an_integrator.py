import math

import torch
from torch import Tensor

import rfm
from manifolds import SPD, Sphere
from rfm.integrators import EULER, MIDPOINT, RK4, Adaptive, FixedStep, NormalCoordinates, Projected

# --8<-- [start:field]
sphere = Sphere(2)


def turning(x: Tensor, t: Tensor) -> Tensor:
    """Turn about the third axis, by half a turn from time 0 to time 1."""
    return math.pi * torch.stack([-x[..., 1], x[..., 0], torch.zeros_like(x[..., 2])], dim=-1)


x = sphere.random_uniform(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
end = x * torch.tensor([-1.0, -1.0, 1.0])
# --8<-- [end:field]

# --8<-- [start:solve]
solution = rfm.integrate(turning, sphere, x, (0.0, 1.0))  # Adaptive(atol=1e-6, rtol=1e-6)
print(solution.final.shape, bool(solution.success.all()), int(solution.evaluations.max()))
back = rfm.integrate(turning, sphere, solution.final, (1.0, 0.0)).final
# --8<-- [end:solve]
assert torch.allclose(back, x, atol=1e-5)

# --8<-- [start:compare]
for name, tableau in {"Euler": EULER, "midpoint": MIDPOINT, "RK4": RK4}.items():
    for steps in (20, 40):
        method = FixedStep(tableau, steps)
        error = sphere.dist(rfm.integrate(turning, sphere, x, (0.0, 1.0), method).final, end).max()
        print(f"{name:9}{steps:3} steps, {steps * len(tableau.c):3} evaluations: error {float(error):.0e} radians")
# --8<-- [end:compare]

# --8<-- [start:coordinates]
cone = SPD(2)
matrices = torch.diag(torch.tensor([1.0, 1e-3], dtype=torch.float64)).expand(5, 2, 2)


def shrink(x: Tensor, t: Tensor) -> Tensor:
    """Divide by e^12 from time 0 to time 1."""
    return -12 * x


method = FixedStep(Projected(EULER), 10)  # each step takes away 1.2 times what is there
failed = rfm.integrate(shrink, cone, matrices, (0.0, 1.0), method, raise_on_failure=False)
print(failed.describe_failure())

method = FixedStep(NormalCoordinates(EULER), 10)  # along geodesics; here they are the solution
solution = rfm.integrate(shrink, cone, matrices, (0.0, 1.0), method)
# --8<-- [end:coordinates]
assert not failed.success.any()
assert torch.allclose(solution.final, math.exp(-12) * matrices, rtol=1e-6)

# --8<-- [start:flow]
flow = rfm.Flow(sphere, turning)
fast = flow.sample(100, solver=FixedStep(MIDPOINT, 20))
exact = flow.log_prob(x, solver=Adaptive(atol=1e-8, rtol=1e-8))
# --8<-- [end:flow]
assert torch.allclose(exact, torch.full_like(exact, -math.log(4 * math.pi)))
