from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from org.chat.routing import is_pass
from org.chat.speech import Speech


def spoken(text: str, sizes: list[int] | None = None) -> tuple[str, str, str]:
    """(what was shown, what counts, whose voice it was cut at) of a text fed in pieces."""
    speech = Speech("coder", ("me", "ann", "anna"))
    shown = []
    position = 0
    for size in sizes or []:
        shown.append(speech.feed(text[position : position + size]))
        position += size
    shown.append(speech.feed(text[position:]))
    shown.append(speech.finish())
    return "".join(shown), speech.text, speech.cut


TEXTS = st.lists(
    st.sampled_from(
        [
            "coder: ",
            "ann: ",
            "**ann**: ",
            "**coder:** ",
            "[ann]: ",
            "anna (to you): ",
            "coder -> @me: ",
            "ann:",
            "\n",
            "\n\n",
            "```",
            "~~~",
            "PASS",
            "**",
            "`",
            ".",
            " ",
            "\t",
            "    ",
            "word",
            "ann",
            "code",
            "(",
            "-",
            "ö",
        ]
    ),
    max_size=12,
).map("".join)


@given(TEXTS, st.lists(st.integers(0, 5), max_size=60))
@example("PASS   \n", [4, 1, 1])
@example("coder:    PASS", [1] * 14)
@example("   " * 150 + "PASS", [450, 1, 1, 1])
@example("```\nann: x\n```\nann: y", [1] * 20)
def test_any_pieces_give_the_whole(text: str, sizes: list[int]) -> None:
    shown, counts, cut = spoken(text, sizes)
    assert (shown, counts, cut) == spoken(text)
    assert shown == ("" if is_pass(counts) else counts)


@given(st.text(max_size=400), st.lists(st.integers(0, 9), max_size=40))
def test_any_text_in_any_pieces_gives_the_whole(text: str, sizes: list[int]) -> None:
    assert spoken(text, sizes) == spoken(text)


@pytest.mark.parametrize("blanks", ["", " ", "\n" * 1000, " \n\t" * 300])
def test_pass_is_never_shown(blanks: str) -> None:
    text = f"{blanks}PASS{blanks}"
    shown, counts, _ = spoken(text, [1] * len(text))
    assert not shown.strip()
    assert is_pass(counts)


@pytest.mark.parametrize(
    "text", ["PASS the salt", "PASSED", "P", "PA", "PASS\n\nNo wait", "**Pa", "`PASS` it"]
)
def test_what_only_begins_like_pass_is_shown(text: str) -> None:
    assert spoken(text, [1] * len(text))[:2] == (text, text)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("coder: hello", "hello"),
        ("coder:\nhello", "hello"),
        ("**coder:** hello", "hello"),
        ("**coder**: hello", "hello"),
        ("[coder]: hello", "hello"),
        ("coder (to me): hello", "hello"),
        ("coder -> @me: hello", "hello"),
        ("coder:      hello", "hello"),
        ("one\ncoder: two", "one\ntwo"),
    ],
)
def test_its_own_name_is_taken_off(text: str, rest: str) -> None:
    assert spoken(text, [1] * len(text)) == (rest, rest, "")


@pytest.mark.parametrize(
    "voice", ["ann: ", "**ann:** ", "[anna]: ", "ann (only to you): ", "me -> @ann: ", "ann:\n"]
)
def test_it_ends_where_it_speaks_as_somebody_else(voice: str) -> None:
    text = f"I think so.\n\n{voice}Me too!\ncoder: Then we agree."
    shown, counts, cut = spoken(text, [3] * 40)
    assert shown == counts == "I think so.\n\n"
    assert cut in ("ann", "anna", "me")


@pytest.mark.parametrize(
    "text",
    [
        "```\nann: x\ncoder: y\n```",
        "~~~yaml\nann: x\n~~~",
        "announce: x",
        "- ann: does this",
        "    ann: code",
        "see ann: she knows",
        "ann:x",
        "ann",
        "@ann: hello",
        "http://ann: x",
    ],
)
def test_what_is_nobodys_voice_stays(text: str) -> None:
    assert spoken(text, [1] * len(text)) == (text.lstrip(), text.lstrip(), "")


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "\n",
        "P",
        "PASS ",
        "*",
        "`",
        "coder: ",
        "a",
        "coder: \t",
        "ann (",
        "ann ->",
        "```\n",
        "[ ",
        "coder:\n",
    ],
)
def test_the_work_grows_with_the_text(text: str) -> None:
    """What is kept to be looked at again stays small, whatever comes."""
    whole = (text * 30_000)[:30_000]
    speech = Speech("coder", ("ann",))
    for position in range(0, len(whole), 7):
        speech.feed(whole[position : position + 7])
        assert len(speech._line) <= 1_000
    speech = Speech("coder", ("ann",))
    for character in f"PASS{' ' * 5_000}":
        speech.feed(character)
    assert is_pass(speech.text)


@pytest.mark.parametrize("unit", [" ", "\n", "a", "PASS ", "coder: ", "ann ", "*", "ann (x", "`"])
def test_a_megabyte_at_once_and_in_pieces(unit: str) -> None:
    whole = (unit * 1_048_576)[:1_048_576]
    assert spoken(whole, [4096] * 255) == spoken(whole)
