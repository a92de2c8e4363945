"""Small problems of every kind, on which optimizers may be developed.

Settings chosen on a problem cannot be judged by it. These are for choosing, the catalogue's for
judging; ``optiscope list problems --development`` lists them, and studies name them as any other.

All have a horizon of 24 epochs, so that its half, third, quarter, sixth and eighth are whole
numbers of epochs. An epoch is a fresh random part of the data
(:class:`~optiscope.problems.development.parts.RandomParts`): 24 epochs are a few passes.
"""
