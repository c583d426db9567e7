"""Measuring models through the protocols alone: bits per byte, compressors to compare with, questions with answers."""
