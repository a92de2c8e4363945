"""The networks that the problems train, one file per architecture family."""
