"""Questions over the memory of many machines: the data set that their services ship, read by DuckDB or by Dask.

``docs/fleet.md`` is for people; `pydamon.dataset` says what lies where.
"""
