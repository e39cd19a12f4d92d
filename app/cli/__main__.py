"""`python -m app.cli` is `puhui`."""

from app.cli import main

main()
