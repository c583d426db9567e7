"""Generating text: sampling, batches over a key-value cache, and the model as a `ChatModel`."""
