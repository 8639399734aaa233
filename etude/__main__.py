"""`python -m etude`."""

from etude.cli.main import main

main()
