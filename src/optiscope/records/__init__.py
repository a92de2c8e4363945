"""The run record, its store, and the folder of a study."""

from optiscope.records.compact import Packing, compact, unpack
from optiscope.records.recipe import Recipe
from optiscope.records.run import Measurement, Run, Seconds, Status, higher_is_better, summarise
from optiscope.records.store import DamagedRecord, RunStore, StoreError
from optiscope.records.study_folder import Entry, StudyFolder
from optiscope.records.trial import SCHEMA_VERSION, Trial

__all__ = [
    "SCHEMA_VERSION",
    "DamagedRecord",
    "Entry",
    "Measurement",
    "Packing",
    "Recipe",
    "Run",
    "RunStore",
    "Seconds",
    "Status",
    "StoreError",
    "StudyFolder",
    "Trial",
    "compact",
    "higher_is_better",
    "summarise",
    "unpack",
]
