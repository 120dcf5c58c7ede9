"""A simulated fleet: rows as hosts ship them, of services whose idle times are known: the truth of answers."""
