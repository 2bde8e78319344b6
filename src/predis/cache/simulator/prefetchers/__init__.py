"""Prefetchers: what to ask for before it is asked for."""
