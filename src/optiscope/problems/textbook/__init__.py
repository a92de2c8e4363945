"""The textbook difficulties of training, each a tiny problem whose answer is known.

One file per difficulty; `trajectory` shows where an optimizer goes on one, `loss_grid` the ground.
"""
