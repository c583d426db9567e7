"""Running code that nobody trusts: one seam, two Linux implementations of it, and a probe that attacks them first."""
