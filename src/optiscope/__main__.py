"""``python -m optiscope``: the command line."""

from optiscope.cli import main

main()
