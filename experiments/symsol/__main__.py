"""Image to orientation: one flow on SO(3), conditional on a picture of a symmetric body, for the five of SYMSOL I.

Prints a table of exact log-likelihoods of poses held out, in nats with respect to a total volume of pi^2, where the
uniform distribution has -2.29 and Implicit-PDF reports 4.10 on its own pictures; and of the symmetric poses found.

    python -m experiments.symsol --run runs/symsol --figure docs/images/symsol.png
    python -m experiments.symsol picture cube cube.png --seed 3
    python -m experiments.symsol --run runs/symsol package rfm/models/symsol
"""

import sys

from experiments.symsol.commands import main

if __name__ == "__main__":
    sys.exit(main())
