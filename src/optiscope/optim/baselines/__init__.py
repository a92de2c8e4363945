"""Optimizers to compare with: first-order methods, Muon, the saddle-free Newton method."""
