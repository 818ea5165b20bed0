"""`python -m ups`."""

import sys

from ups.commands.main import main

sys.exit(main())
