"""What every command of the command line has, whether it is called by the whole line or by itself.

It stands apart from the commands because `puna --help` imports none of them.
"""

from __future__ import annotations

SETTINGS = {"help_option_names": ["-h", "--help"]}  # click keeps those that a command is first asked with
