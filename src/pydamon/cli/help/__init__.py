"""What the command says of itself: help in the terminal, the manual, and what was probably meant.

All of it is made from the definitions of the verbs (`page`), beside which stand two tables: `groups` and `examples`.
"""
