"""What Linux offers, one module for each interface: nothing of DAMON, no regions."""
