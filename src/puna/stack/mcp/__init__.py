"""Tools of other servers, by the Model Context Protocol: a client, the configured servers, and a guard of addresses."""
