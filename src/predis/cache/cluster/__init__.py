"""A Valkey Cluster behind the gateway, as if it were one Valkey."""
