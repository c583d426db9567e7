"""Where a text's headings, paragraphs, terms and code stand, one module per notation."""
