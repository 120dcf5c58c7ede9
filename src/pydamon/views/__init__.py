"""What is shown of what runs: typed fields with unit, help and kind, from which tables and JSON are made."""
