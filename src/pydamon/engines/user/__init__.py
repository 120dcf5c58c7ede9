"""The ``user`` engine: our core over what the machine offers user space."""
