"""Windows by time, of an endpoint and of each level of its segments."""
