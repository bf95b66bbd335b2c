"""Settings for all tests: the machine is shared between workers, so torch takes one thread."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; spinning threads starve the emulator's

pytest_plugins = ["browser"]  # the fixtures `chromium` and `page`
