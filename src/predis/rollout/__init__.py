"""Moving an endpoint from one version to another, step by step, with gates that turn it back."""
