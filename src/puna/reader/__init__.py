"""Answers that are quotations: candidate spans, what speaks for them, and the choice among them; see `reading`."""
