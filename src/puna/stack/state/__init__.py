"""What the server keeps: records of any kind in SQLite or PostgreSQL, each with an owner."""
