"""Tests of ingest.resumable."""
