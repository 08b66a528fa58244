"""The database: connecting, the schema and its policies, and emptying it."""
