"""One run of a spec: open an engine, drive it, record what it finds; launch a command, hear signals."""
