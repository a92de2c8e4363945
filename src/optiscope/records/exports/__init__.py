"""Records, and runs while they train, in the formats of other programs."""
