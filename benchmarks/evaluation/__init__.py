"""Experiments that say whether an application does what it promises, beside what was published or the kernel does."""
