"""The data set of a fleet: a row a minute and cgroup, as Parquet files that any tool of SQL or data frames reads."""
