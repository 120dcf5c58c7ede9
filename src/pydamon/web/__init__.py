"""A page in the browser over recordings: read only, nothing loaded from elsewhere."""
