"""`Catalog.transact` as a block of a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from storage.catalog import Catalog
from storage.catalog.books import Books

FEW_ACCOUNTS = 24


@contextmanager
def writing_books(catalog: Catalog, **arguments: Any) -> Iterator[Books]:
    """The books of one transaction, which ends with the block: committed, or undone when an exception leaves it.

    The transaction is another thread's, which does nothing while the block runs. One that has a time may add a few
    accounts, unless `new_accounts` says otherwise.
    """
    arguments = {"new_accounts": FEW_ACCOUNTS if arguments.get("now_ms") is not None else 0, **arguments}
    begun: SimpleQueue[Books | BaseException] = SimpleQueue()
    left: SimpleQueue[BaseException | None] = SimpleQueue()
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def work(books: Books) -> None:
        begun.put(books)
        if (error := left.get()) is not None:
            raise error

    def transaction() -> None:
        try:
            catalog.transact(work, **arguments)
        except BaseException as error:
            begun.put(error)
            ended.put(error)
        else:
            ended.put(None)

    thread = threading.Thread(target=transaction)
    thread.start()
    try:
        books = begun.get()
        if isinstance(books, BaseException):
            raise books
        try:
            yield books
        except BaseException as error:
            left.put(error)
            raise
        left.put(None)
        if (failure := ended.get()) is not None:
            raise failure
    finally:
        thread.join()
