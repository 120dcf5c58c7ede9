"""A simulated machine whose pages, and who accesses them, are known."""
