"""Checks before training, a family in each file."""
