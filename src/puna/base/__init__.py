"""The ground that every room stands on: errors, configuration, files, the registry, progress, the machine."""
