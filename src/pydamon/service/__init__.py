"""Monitoring in the background: one daemon per kdamond, with a control socket that only its owner can reach."""
