"""`python -m pixelq` is `pixelq`."""

import sys

from pixelq.cli.main import main

sys.exit(main())
