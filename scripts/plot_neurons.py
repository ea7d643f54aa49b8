#!/usr/bin/env python3
"""Draws traces of neurons: their effects by layer, and how few of them bring the answer back.

--help says how; the program is python/rometrace/plot_neurons.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "python"))

from rometrace.plot_neurons import main  # noqa: E402

sys.exit(main())
