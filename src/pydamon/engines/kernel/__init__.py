"""The ``kernel`` engine: the kernel's own DAMON, driven through its sysfs files."""
