"""Conformance suites for your own problem, optimizer, executor or instrument, and the bug suite."""
