"""The named recipes: functions that return one complete typed config, and the runner that carries them out."""
