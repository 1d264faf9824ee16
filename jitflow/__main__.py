"""``python -m jitflow``: the ``jitflow`` command where its script is not on the path."""

import sys

from jitflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
