"""Runs on a simulated machine, one beside another: what a policy saves and costs."""
