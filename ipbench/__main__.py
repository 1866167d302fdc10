"""`python -m ipbench` is the command `ipbench`."""

import sys

from ipbench.cli.main import main

if __name__ == "__main__":  # processes that draw figures import this file again
    sys.exit(main())
