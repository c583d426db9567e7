"""The commands of the command line, one module each; `puna.cli` imports the one that is called."""
