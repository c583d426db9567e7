"""The server: one API for models, documents, safety, evaluation, training and agents; see `app` for the way in."""
