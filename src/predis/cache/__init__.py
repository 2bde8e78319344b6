"""The cache gateway, what it learns of its traffic, and the simulator that judges what it could do better."""
