"""What a spec asks for, in plain words, and what is likely not meant."""
