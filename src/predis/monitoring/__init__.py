"""Windows over the prediction log, checks, alerts, and the evidence that rollouts decide on."""
