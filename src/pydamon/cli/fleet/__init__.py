"""The verbs of ``pydamon fleet``."""
