"""Migrations of the catalog's file, by Alembic. `run` runs them; nothing else of the project imports Alembic.

A new schema is a new file in `versions` (SQL, frozen when it is released), the same in `storage.sqlite.schema`, which
makes new catalogs in one step, and a higher `SCHEMA_VERSION` and `REVISION` there. A test compares the two.
"""
