"""From a folder of documents to what a model learns: reading, de-duplication, splitting, questions, conversations."""
