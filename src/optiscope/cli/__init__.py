"""The command line: ``optiscope`` and its subcommands, each imported when it is used."""

from optiscope.cli.root import main

__all__ = ["main"]
