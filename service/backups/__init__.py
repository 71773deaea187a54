"""Backups of a home: what is copied, where it is kept, and how it is put back.

A backup has two parts, folders of one name under two destinations: one with the catalog and the configuration, one with
the keys. Whoever has both, and the objects, reads all recordings; whoever has one of them reads none.
"""
