"""`python -m anystep`: the command line."""

from anystep.cli.main import main

raise SystemExit(main())
