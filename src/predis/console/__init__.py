"""The console: one live page of what stands where and how it does."""
