"""The composition root: the only place that constructs objects and tells them of each other. One module per role."""
