"""`python -m pixelq` is `pixelq`."""

import sys

from pixelq.cli.main import entry

sys.exit(entry())
