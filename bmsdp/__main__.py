"""``python -m bmsdp``: the command line."""

from .cli import main

raise SystemExit(main())
