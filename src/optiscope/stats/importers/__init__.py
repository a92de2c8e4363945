"""Published results as run records marked ``imported``, which enter no claim."""

from optiscope.stats.importers.deepobs import import_deepobs
from optiscope.stats.importers.foreign_run import ImportFormatError, foreign_run
from optiscope.stats.importers.kept import imported_runs, keep_imported
from optiscope.stats.importers.table import import_table

__all__ = [
    "ImportFormatError",
    "foreign_run",
    "import_deepobs",
    "import_table",
    "imported_runs",
    "keep_imported",
]
