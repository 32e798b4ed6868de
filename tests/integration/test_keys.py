"""The keys of the live view in a real terminal: what they do, and that the terminal stays usable."""

import os
import re
import signal
import termios
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from data_producer.controls import Controls, Flow, application

from runtime.health import Health, serve
from tests.terminal import Terminal, terminal_of

SHOW_CURSOR, HIDE_CURSOR, ERASE_SCREEN = "\x1b[?25h", "\x1b[?25l", "\x1b[2J"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"


def _terminal(data: Path, port: int, *mode: str, **variables: str) -> AbstractContextManager[Terminal]:
    return terminal_of(["-m", "tests.watched_demo", str(data), str(port), *mode], variables)


def _producer(controls: Controls) -> int:
    return serve(Health("kafka"), "127.0.0.1", 0, {"/control": application(controls)})


def test_a_key_acts_at_once_and_q_stops_it(tmp_path: Path) -> None:
    controls = Controls(Flow(rate=1, users=10, items=10))
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    with _terminal(tmp_path, _producer(controls), DISPLAY=":0", BROWSER=f"{browser} %s") as terminal:
        terminal.wait_for_text("b browser  p pause  + burst of 1,000  m 10 malformed  v viral item  q quit")
        terminal.press(b"p")
        terminal.wait_for_text("the producer is paused: p resumes it")
        assert controls.flow.paused
        # A capital letter is the same key.
        terminal.press(b"P")
        terminal.wait_for_text("the producer sends again")
        terminal.press(b"b")
        terminal.wait_for_text("opened http://localhost:8090")
        assert (tmp_path / "opened").read_text() == "http://localhost:8090\n"
        terminal.press(b"q")
        assert terminal.status() == 0
        terminal.wait_for_text("stopped")
        assert termios.tcgetattr(terminal.terminal) == terminal.modes


def test_other_keys_and_those_that_send_several_characters_do_nothing(tmp_path: Path) -> None:
    controls = Controls(Flow(rate=1, users=10, items=10))
    with _terminal(tmp_path, _producer(controls)) as terminal:
        terminal.wait_for_text("q quit")
        # F1, an arrow, one with Ctrl, Return, and a letter beyond ASCII.
        terminal.press(b"\x1bOP\x1b[B\x1b[1;5D\r\xc3\xa9x+")
        terminal.wait_for_text("+ 1,000 interactions")
        assert not controls.flow.paused
        assert controls.drain_requests() == (1_000, 0, 0)
        assert "opened" not in terminal.drawn
        assert "no browser opens here" not in terminal.drawn


def test_ctrl_c_still_stops_it(tmp_path: Path) -> None:
    with _terminal(tmp_path, 1) as terminal:
        terminal.wait_for_text("q quit")
        terminal.press(b"\x03")
        assert terminal.status() == 0
        terminal.wait_for_text("stopped")
        assert termios.tcgetattr(terminal.terminal) == terminal.modes


def test_ctrl_z_leaves_the_terminal_as_it_was_and_it_continues(tmp_path: Path) -> None:
    controls = Controls(Flow(rate=1, users=10, items=10))
    with _terminal(tmp_path, _producer(controls), "--shell") as terminal:
        terminal.wait_for_text("q quit")
        in_foreground = partial(terminal.press, b"\x1a")
        in_background = partial(terminal.process.send_signal, signal.SIGUSR1)
        for suspend in (in_foreground, in_background, in_foreground):
            terminal.wait_for(lambda: termios.tcgetattr(terminal.terminal) != terminal.modes)
            terminal.drawn = ""
            suspend()
            terminal.wait_for_text("suspended")
            terminal.wait_for(lambda: termios.tcgetattr(terminal.terminal) == terminal.modes)
            terminal.wait_for(lambda: SHOW_CURSOR in terminal.drawn)
            assert terminal.drawn.rindex(SHOW_CURSOR) > terminal.drawn.rfind(HIDE_CURSOR)
            terminal.press(b"\n")
            terminal.wait_for(lambda: HIDE_CURSOR in terminal.drawn)
            # Below what the shell has printed, it is drawn anew.
            terminal.wait_for(lambda: ERASE_SCREEN in terminal.drawn)
            terminal.press(b"+")
            terminal.wait_for_text("+ 1,000 interactions")
            assert controls.drain_requests() == (1_000, 0, 0)
        terminal.press(b"q")
        assert terminal.status() == 0
        assert termios.tcgetattr(terminal.terminal) == terminal.modes


def test_after_bg_it_draws_nothing_over_the_shell_until_fg(tmp_path: Path) -> None:
    observed = tmp_path / "observed"
    with _terminal(tmp_path, 1, "--shell") as terminal:
        terminal.wait_for_text("q quit")
        terminal.press(b"\x1a")
        terminal.wait_for_text("suspended")
        terminal.press(b"bg\n")
        # It goes on: of the first of these seconds it has drawn what it draws.
        for _ in range(2):
            observed.unlink(missing_ok=True)
            terminal.wait_for(observed.exists)
        assert terminal.drawn.strip() == "bg"
        terminal.press(b"\n")
        terminal.wait_for(lambda: HIDE_CURSOR in terminal.drawn)
        terminal.wait_for(lambda: ERASE_SCREEN in terminal.drawn)
        terminal.wait_for_text("q quit")
        terminal.press(b"q")
        assert terminal.status() == 0


def test_in_the_background_it_is_not_suspended_and_leaves_the_terminal_alone(tmp_path: Path) -> None:
    with _terminal(tmp_path, 1, "--background") as terminal:
        terminal.press(b"q\n")
        assert terminal.status() == 0
        terminal.wait_for_text("stopped")
        # It prints, but draws nothing.
        assert "running: open " in terminal.drawn
        assert "q quit" not in terminal.drawn
        assert terminal.drawn.rfind(SHOW_CURSOR) >= terminal.drawn.rfind(HIDE_CURSOR)
        assert termios.tcgetattr(terminal.terminal) == terminal.modes
        # The key is for the program in the foreground.
        assert os.read(terminal.terminal, 10) == b"q\n"


def test_a_terminal_that_becomes_wider_shows_two_panes_and_nothing_of_before(tmp_path: Path) -> None:
    with _terminal(tmp_path, 1) as terminal:
        terminal.wait_for_text("q quit")
        assert not _has_two_panes(terminal.drawn)
        terminal.resize(130, 40)
        terminal.wait_for(lambda: _has_two_panes(terminal.drawn))
        # Erased before it is drawn again, and the terminal shows both at once.
        at_once = re.compile(rf"{re.escape(BEGIN)}(?:(?!{re.escape(END)}).)*{re.escape(ERASE_SCREEN)}", re.S)
        assert at_once.search(terminal.drawn)
        terminal.wait_for(lambda: END in terminal.drawn.partition(ERASE_SCREEN)[2])


def _has_two_panes(drawn: str) -> bool:
    return any("rate" in line and "process" in line for line in drawn.splitlines())
