"""`python -m salver.cli` is `salver`."""

from salver.cli.app import main

main()
