"""Compiled kernels for inference on a CPU, each with a plain torch fallback of equal output."""
