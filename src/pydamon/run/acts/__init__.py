"""Carries out what controllers of modules decide: observed, bounded, counted, undone at the end."""
