"""The stable face of pydamon for programs; what it offers is imported from `pydamon` itself (docs/library.md)."""
