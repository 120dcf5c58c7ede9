"""What a policy would save and cost, answered from a recording."""
