"""Chat: in the terminal."""
