"""``python -m rfm``, the same as ``rfm``."""

from rfm.command_line.main import main

raise SystemExit(main())
