"""Export: a model in the files of other programs, each checked by reading it back."""
