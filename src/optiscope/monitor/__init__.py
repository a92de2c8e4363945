"""Instruments: what measures a training step."""
