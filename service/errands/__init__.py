"""Errands: long work that an operator asks for on a page, done beside the page.

running   one at a time in this process: what is under way, and what came of the newest of each kind
work      what each errand does on an opened data folder
child     a process of its own for each, so that a pass over millions of chunks takes no time from viewers
process   that process
"""
