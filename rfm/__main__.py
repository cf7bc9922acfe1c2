"""``python -m rfm``, the same as ``rfm``."""

from rfm.cli import main

raise SystemExit(main())
