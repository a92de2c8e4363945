"""Figures of the report: one file each, its data first, its drawing after."""
