"""`python -m neurenix.cli`."""

import sys

from . import main

sys.exit(main())
