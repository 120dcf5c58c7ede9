"""What a service ships to a fleet's data set: gathered each minute, kept on disk until the store has it."""
