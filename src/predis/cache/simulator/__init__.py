"""What a cache would have done: traces replayed against policies, prefetchers and bounds."""
