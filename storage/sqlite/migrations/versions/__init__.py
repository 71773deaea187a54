"""One file per revision of the schema, oldest first. A released one is never changed."""
