"""`python -m flows.cli`: the command line, for processes that it starts itself."""

from __future__ import annotations

from . import main

main()
