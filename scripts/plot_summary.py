#!/usr/bin/env python3
"""Draws a summary's averages as in the paper (arXiv 2202.05262, figures 2 and 3) from what `rometrace summary` wrote.

--help says how; the program is python/rometrace/plot_summary.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "python"))

from rometrace.plot_summary import main  # noqa: E402

sys.exit(main())
