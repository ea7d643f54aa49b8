#!/usr/bin/env python3
"""Makes one page of HTML from results: averages, a table of facts, each fact's grids. It needs no network.

--help says how; the program is python/rometrace/report.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "python"))

from rometrace.report import main  # noqa: E402

sys.exit(main())
