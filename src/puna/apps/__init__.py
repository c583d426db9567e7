"""Applications over the protocols: they know a `ChatModel`, and never which one."""
