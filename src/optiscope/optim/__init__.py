"""Curvature-aware optimizers, and the pure mathematics under them."""
