"""A service that a file declares: its monitors, each a kdamond in a process of its own, and who keeps them running."""
