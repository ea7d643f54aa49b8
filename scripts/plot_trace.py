#!/usr/bin/env python3
"""Draws traces as the paper's heat maps (arXiv 2202.05262, figure 1): tokens down, layers across.

--help says how; the program is python/rometrace/plot_trace.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "python"))

from rometrace.plot_trace import main  # noqa: E402

sys.exit(main())
