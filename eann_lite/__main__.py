"""``python -m eann_lite`` is the command ``eann-lite``."""

import sys

from eann_lite.cli import main

if __name__ == "__main__":
    sys.exit(main())
