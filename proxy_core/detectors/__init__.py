"""What to look for in text: pure functions of bytes."""
