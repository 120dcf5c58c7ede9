"""Where reports of accesses come from: programs that trace or sample them, understood from their output."""
