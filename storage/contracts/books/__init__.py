"""What `storage.catalog.books.Books` promises, and the way to it, `BooksCatalog`: by subject, and all in one class."""

from __future__ import annotations

from storage.contracts.books.accounts import AccountsContract
from storage.contracts.books.clips import ClipsContract
from storage.contracts.books.devices import DevicesContract
from storage.contracts.books.ending import EndingContract
from storage.contracts.books.history import HistoryContract
from storage.contracts.books.identities import IdentitiesContract
from storage.contracts.books.money import MoneyContract
from storage.contracts.books.notices import NoticesContract
from storage.contracts.books.operators import OperatorsContract
from storage.contracts.books.packages import PackagesContract
from storage.contracts.books.people import PeopleContract
from storage.contracts.books.sessions import SessionsContract
from storage.contracts.books.shares import SharesContract
from storage.contracts.books.transactions import TransactionsContract


class BooksContract(
    TransactionsContract,
    AccountsContract,
    DevicesContract,
    SessionsContract,
    IdentitiesContract,
    OperatorsContract,
    PackagesContract,
    MoneyContract,
    HistoryContract,
    NoticesContract,
    PeopleContract,
    SharesContract,
    ClipsContract,
    EndingContract,
):
    """See the module docstring."""
