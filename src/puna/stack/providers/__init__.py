"""Where answers come from: the engine in this process, or servers elsewhere."""
