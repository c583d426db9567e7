"""The stages of `puna raise`, one module each: a config, and a function that does the work in a folder."""
