"""Questions over the records of many machines."""
