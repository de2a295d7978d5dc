"""`python -m anystep`: the command line."""

import sys

from anystep.cli.main import main

sys.exit(main())
