#!/usr/bin/env python3
"""Draws an edit: the traces before and after it, how its value was found, and what it changed.

--help says how; the program is python/rometrace/plot_edit.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "python"))

from rometrace.plot_edit import main  # noqa: E402

sys.exit(main())
