"""What reaches a terminal."""

import io

import pytest

from org.cli.style import Style, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "env", "colours"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),  # empty counts as not set
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_colours_only_on_a_terminal_that_wants_them(
    stream: io.StringIO, env: dict[str, str], colours: bool
) -> None:
    style = Style.for_stream(stream, env)
    assert style.red("x") == ("\x1b[31mx\x1b[0m" if colours else "x")


def test_nothing_is_painted_around_nothing() -> None:
    assert Style(True).bold("") == ""


def test_a_table_lines_up_and_has_no_blanks_at_its_ends() -> None:
    assert (
        table(("ID", "N"), [("room-1", "2"), ("x", "10")], Style(False)) == "ID      N\nroom-1  2\nx       10"
    )
