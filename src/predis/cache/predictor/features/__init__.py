"""What is known of a key when it is read: 64 numbers, from the past alone (``table`` documents each)."""
