"""Completing words in a shell: the script that does it, and what it asks this command."""
