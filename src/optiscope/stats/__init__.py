"""Arithmetic on records: comparisons, claims, tuning curves, summaries."""
