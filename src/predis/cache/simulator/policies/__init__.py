"""Demand policies: what to keep, and what to let go."""
