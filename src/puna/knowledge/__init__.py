"""Documents taken apart for finding and quoting: structure, passages, and how a passage meets a question."""
