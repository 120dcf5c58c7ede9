"""Accesses that a source reports, as an operations set, and the sources that can be read."""
