"""The desk: what owners and operators ask of the service agreement, one function per use case.

A function reads facts, asks a pure rule of `retention`, and writes what it decides, in one transaction of the catalog
(or in a few, each of which leaves a state that the next run goes on from). It knows nothing of HTTP or of a terminal.
"""
