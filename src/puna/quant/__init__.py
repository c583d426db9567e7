"""Quantisation: formats, plans, methods, calibration, quantisation-aware training, and what a model loses by it."""
