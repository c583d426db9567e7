"""Files to documents, one module per family of formats."""
