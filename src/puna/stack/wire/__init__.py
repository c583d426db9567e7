"""The bodies of requests and answers as pydantic models, a module for each area."""
