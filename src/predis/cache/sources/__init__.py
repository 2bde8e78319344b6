"""Sources: slow data that keys are loaded from and written to."""
