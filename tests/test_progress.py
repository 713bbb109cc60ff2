"""Progress: plain lines where there is no terminal, with count, rate and time left, and not too many."""

import io

import pytest

from stillroom import progress
from stillroom.progress import meter


def test_plain_lines_tell_count_rate_and_time_left(capsys, monkeypatch) -> None:
    clock = iter([100.0, 100.0, 105.0, 105.0, 120.0, 120.0, 120.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with meter("toy", 100, "rows", start=10) as bar:
        bar.advance(5, "loss 1.0")  # too soon for a line
        bar.advance(35, "loss 0.5")
    out = capsys.readouterr()
    assert out.err == "  toy: 50/100 2.0 rows/s loss 0.5 25 s left\n"
    assert out.out == ""


def test_nothing_is_told_of_what_is_quick(capsys) -> None:
    with meter("toy", 1000) as bar:
        for _ in range(1000):
            bar.advance()
    assert bar.done == 1000
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress.sys, "stderr", screen)
    with meter("toy", 4, "rows") as bar:
        bar.advance(4, "loss 1.0")
    assert "toy" in screen.getvalue()
    assert "4/4" in screen.getvalue()


def test_messages_go_to_the_user_and_not_into_results(capsys) -> None:
    progress.say("= base: reused")
    assert capsys.readouterr() == ("", "= base: reused\n")


def test_a_bar_does_not_hide_an_error() -> None:
    with pytest.raises(KeyError), meter("toy", 1):
        raise KeyError
