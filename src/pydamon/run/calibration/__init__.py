"""Measures on this machine what a cost file holds: on memory and a file of its own, without changing any setting."""
