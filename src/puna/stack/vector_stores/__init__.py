"""Vector stores: uploaded files made searchable, in the background and across restarts."""
