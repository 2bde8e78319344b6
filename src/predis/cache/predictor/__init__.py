"""The predictor: what will be asked next, how sure that is, and whether acting on it pays."""
