"""Which knobs of a policy do best on a recording, within a limit: the space, what each point would do, the frontier."""
