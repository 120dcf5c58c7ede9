"""Measurements, printed and never asserted: ``python -m benchmarks [truth|cost|flatness|reports …]``."""
