"""Batches: many requests of one file, answered in the background and across restarts."""
