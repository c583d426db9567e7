"""Questions whose answers are quoted from a document, found by structure: one short module for each structure."""
