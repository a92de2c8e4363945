"""Tables of the report, as values: what stands in each cell, before it is written out."""
