"""`predis demo`: the whole life of a model on real flights, in minutes."""
