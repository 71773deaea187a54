"""A gateway's calls with an end: who asks it waits for so long, and then counts the call as unanswered.

A call that comes back later has moved money, or not, under its reference: the next call under it is told which. Until
then its thread is left alone with it. So many calls may be left like that before the gateway counts as away.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from retention.money import Money
from service.agreement.payments import Method, PaymentGateway, PaymentUnavailable, Receipt

T = TypeVar("T")

MAX_CALLS = 512
"""Calls that wait or were given up, in one process: threads of some 50 KB each. A guess: a gateway with time-outs of
its own, as it should have, never has so many."""


class _Asking(ABC):
    """A `PaymentGateway` that asks another one, in a way of its own."""

    def __init__(self, gateway: PaymentGateway) -> None:
        self._gateway = gateway

    @abstractmethod
    def _ask(self, call: Callable[[], T]) -> T: ...

    @property
    def keeps_methods(self) -> bool:
        return self._gateway.keeps_methods

    def charge(self, reference: str, money: Money, method: str, why: str) -> Receipt:
        return self._ask(lambda: self._gateway.charge(reference, money, method, why))

    def refund(self, reference: str, of_reference: str, money: Money) -> Receipt:
        return self._ask(lambda: self._gateway.refund(reference, of_reference, money))

    def void(self, reference: str, money: Money) -> Receipt | None:
        return self._ask(lambda: self._gateway.void(reference, money))

    def look_up(self, reference: str, kind: str, money: Money, of_reference: str = "") -> Receipt | None:
        return self._ask(lambda: self._gateway.look_up(reference, kind, money, of_reference))

    def receipts(self) -> Iterator[Receipt] | None:
        """Not bounded in time: only a gateway of this host has a list."""
        return self._gateway.receipts()

    def set_up_method(self, reference: str) -> Method:
        return self._ask(lambda: self._gateway.set_up_method(reference))

    def look_up_method(self, reference: str) -> Method | None:
        return self._ask(lambda: self._gateway.look_up_method(reference))

    def remove_method(self, reference: str, method: str) -> None:
        self._ask(lambda: self._gateway.remove_method(reference, method))


class PatientGateway(_Asking):
    """Raises PaymentUnavailable for a call that takes longer than `wait_s`.

    Args:
        gateway: what is asked. Its threads are daemons: none keeps a process from ending.
    """

    def __init__(self, gateway: PaymentGateway, *, wait_s: float, max_calls: int = MAX_CALLS) -> None:
        super().__init__(gateway)
        self._wait_s = wait_s
        self._room = threading.Semaphore(max_calls)

    def _ask(self, call: Callable[[], T]) -> T:
        if not self._room.acquire(blocking=False):
            raise PaymentUnavailable("the payment gateway answers nobody; try again later")
        answer: Future[T] = Future()

        def work() -> None:
            try:
                answer.set_result(call())
            except BaseException as error:
                answer.set_exception(error)
            finally:
                self._room.release()

        threading.Thread(target=work, daemon=True, name="payment").start()
        try:
            return answer.result(self._wait_s)
        except TimeoutError:
            if answer.done():  # just now, or the time-out is the gateway's own
                return answer.result()
            raise PaymentUnavailable(
                f"the payment gateway has not answered for {self._wait_s:g} s; try again later"
            ) from None


class YieldingGateway(_Asking):
    """Whoever waits for its answer leaves the turn to others: of many who never get one, none keeps those waiting who
    would.

    Args:
        turns: of which the caller holds one.
    """

    def __init__(self, gateway: PaymentGateway, turns: threading.Semaphore) -> None:
        super().__init__(gateway)
        self._turns = turns

    def _ask(self, call: Callable[[], T]) -> T:
        self._turns.release()
        try:
            return call()
        finally:
            self._turns.acquire()
