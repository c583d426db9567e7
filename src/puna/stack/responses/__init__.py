"""The responses API: items, the run that makes them, its events, and what is kept of it."""
