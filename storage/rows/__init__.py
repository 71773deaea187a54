"""What the catalog keeps, row by row, as its interfaces (`storage.catalog`) take and give it."""
