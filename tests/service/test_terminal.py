"""What commands say while they work."""

from __future__ import annotations

import json
import os
import signal

import pytest

from service import terminal


def lines(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, int, int | None]]:
    return [tuple(json.loads(line).values()) for line in capsys.readouterr().err.splitlines()]


def test_lines_are_as_many_as_seconds_and_end_with_the_last_word(capsys: pytest.CaptureFixture[str]) -> None:
    """A million objects make no million lines, also where nobody knows how many there are."""
    with terminal.progress_bar() as progress:
        for done in range(1, 1001):
            progress("objects", done, 0)
        for done in range(1, 1001):
            progress("delete", done, max(done, 5))
    assert lines(capsys) == [
        ("objects", 1, None),
        ("objects", 1000, None),
        ("delete", 1, 5),
        ("delete", 1000, 1000),
    ]


def test_a_line_a_second(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now_s[0])
    with terminal.progress_bar() as progress:
        for done in range(5):
            progress("delete", done, 10)
            now_s[0] += terminal.LINE_EVERY_S / 2
    assert [done for _, done, _ in lines(capsys)] == [0, 2, 4]


def test_what_waits_says_so_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now_s[0])
    with terminal.progress_bar() as progress:
        for done in (0, 1, 1, 1, 2):
            progress("hosts", done, 2)
            now_s[0] += 2 * terminal.LINE_EVERY_S
    assert [done for _, done, _ in lines(capsys)] == [0, 1, 2]


def test_an_error_leaves_the_last_word(capsys: pytest.CaptureFixture[str]) -> None:
    def three_and_no_more() -> None:
        with terminal.progress_bar() as progress:
            for done in (1, 2, 3):
                progress("erase", done, 9)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        three_and_no_more()
    assert lines(capsys)[-1] == ("erase", 3, 9)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_end_by_way_of_the_clean_up(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def stopped() -> None:
        with terminal.ended_cleanly("the next one goes on"):
            try:
                os.kill(os.getpid(), number)
                signal.sigtimedwait([], 5)  # a place to be interrupted at
            finally:
                cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert cleaned == [True]
    assert capsys.readouterr().err == "interrupted: the next one goes on\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_document_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """What says nothing is left out, nothing looks like Python, and what others wrote can't act on the terminal."""
    fee = {"minor": 599, "currency": "USD"}
    terminal.report(
        {"ends_on": None, "renews": True, "notes": [], "fee": fee, "plans": [{"a_b": 1}], "name": "x\x1b[2J"},
        False,
    )
    assert capsys.readouterr().out == "renews: yes\nfee: 5.99 USD\nplans: \n  a b 1\nname: x\ufffd[2J\n"
