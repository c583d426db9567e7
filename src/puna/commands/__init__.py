"""The commands of the command line, one module each; `puna.cli` imports the one that is called."""

# Of every command, so that it answers to the same whether the whole command line calls it or a test does.
SETTINGS = {"help_option_names": ["-h", "--help"]}
