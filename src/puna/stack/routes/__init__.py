"""The routes, a module for each area; each has a `router`, and `app` includes them all."""
