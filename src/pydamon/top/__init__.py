"""`pydamon top`: what processes use of their memory, live, in a terminal.

Only `app`, `lines` and the pages draw.
"""
