"""How the answers of ``pydamon what-if`` are shown: text, JSON, pictures."""
