"""`python -m ipbench` is the command `ipbench`."""

import sys

from ipbench.cli import main

sys.exit(main())
