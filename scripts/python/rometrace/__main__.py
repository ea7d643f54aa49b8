"""python -m rometrace: the command rometrace."""

import sys

from rometrace.launcher import main

sys.exit(main())
