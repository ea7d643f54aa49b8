#!/usr/bin/env python3
"""Draws what severing takes from a state's effect as the paper's bars (arXiv 2202.05262, figure 3), layer by layer.

--help says how; the program is python/rometrace/plot_severed.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "python"))

from rometrace.plot_severed import main  # noqa: E402

sys.exit(main())
