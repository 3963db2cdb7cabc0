from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from org.chat.routing import NEAR, address_of, edit_distance, is_pass, parse_mode, route
from org.errors import UsageError
from org.messages import EVERYONE, Audience

NAMES = ("me", "ann", "anna", "coder")
PRIVATE = Audience.only("anna")


def segments(text: str, sender: str = "coder", standing: Audience = EVERYONE) -> list[tuple[str, str]]:
    routed = route(text, sender, NAMES, standing)
    assert not routed.refused
    return [(str(segment.audience), segment.content) for segment in routed.segments]


def refused(text: str, sender: str = "coder") -> list[str]:
    return [refusal.word for refusal in route(text, sender, NAMES, EVERYONE).refused]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", [("group", "hello")]),
        ("@ann hello", [("direct:ann", "hello")]),
        ("@anna hello", [("direct:anna", "hello")]),
        ("@ann: hello", [("direct:ann", "hello")]),
        ("@ann, hello", [("direct:ann", "hello")]),
        ("@ANN hello", [("direct:ann", "hello")]),
        ("   @ann hello", [("direct:ann", "hello")]),
        ("@ann\u00a0hello", [("direct:ann", "hello")]),
        ("@ann @me: hello", [("direct:ann,me", "hello")]),
        ("@ann, @me, hello", [("direct:ann,me", "hello")]),
        ("@ann @ann hello", [("direct:ann", "hello")]),
        ("@ann\nhello\nagain", [("direct:ann", "hello\nagain")]),
        ("@ann @coder hello", [("direct:ann", "hello")]),  # oneself among others
        ("@ann @group hello", [("group", "hello")]),
        ("@ann @everybody hello", [("direct:ann", "@everybody hello")]),
        (
            "to all\n@ann secret\n@group all again",
            [("group", "to all"), ("direct:ann", "secret"), ("group", "all again")],
        ),
        ("a\r\n@ann b\r\nc\r\n", [("group", "a"), ("direct:ann", "b\nc")]),
        ("@ann", []),
        ("  \n \n", []),
        ("#file:a/b.txt x", [("file:a/b.txt", "x")]),
        ("#file:a.txt: x", [("file:a.txt", "x")]),
        ("#FILE:a.txt x", [("file:a.txt", "x")]),
        ('#file:"my notes.txt" x', [("file:my notes.txt", "x")]),
        ("#file:a.txt\nx\n@me done", [("file:a.txt", "x"), ("direct:me", "done")]),
    ],
)
def test_addresses(text: str, expected: list[tuple[str, str]]) -> None:
    assert segments(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "ann@example.org hello",
        "@ann.example hello",
        "@ann(x)",
        "@dataclass\nclass A: ...",
        "@property\ndef f(): ...",
        "see @ann for that",
        "@ann's idea",
        "@ann:hello",
        "    @ann hello",
        "\t@ann hello",
        "- @ann hello",
        "@ hello",
        "#files:a.txt x",
        "# file:a.txt x",
    ],
)
def test_text_that_is_no_address(text: str) -> None:
    assert segments(text) == [("group", text.strip("\n"))]


@pytest.mark.parametrize(
    "code",
    [
        "```\n@ann x\n```",
        "```py\n@ann x\n```",
        "~~~\n@ann x\n```\n@ann y\n~~~",
        "````\n```\n@ann x\n```\n@ann y\n````",
        "  ```\n@ann x\n  ```",
        "```\n@ann x",
        "```\n@ann x\n``` no end\n@ann y\n```",
        "~~~ `a`\n@ann x\n~~~",
    ],
)
def test_nothing_in_a_code_block_is_an_address(code: str) -> None:
    assert segments(code) == [("group", code)]
    assert segments(f"@me {code}") == [("direct:me", code.strip())]
    assert segments(f"@me\n{code}\n")[0][0] == "direct:me"


def test_an_address_after_a_code_block_counts() -> None:
    assert segments("```\n@ann x\n```\n@ann y") == [("group", "```\n@ann x\n```"), ("direct:ann", "y")]
    assert segments("``` a`b\n@ann y") == [("group", "``` a`b"), ("direct:ann", "y")]
    assert segments("@me ```\n@ann x\n```\n@ann y") == [
        ("direct:me", "```\n@ann x\n```"),
        ("direct:ann", "y"),
    ]


@pytest.mark.parametrize("word", ["codr", "codder", "Annn", "cöder", "co\u0308der", "grupp", "an", "n"])
def test_a_near_miss_is_refused(word: str) -> None:
    routed = route(f"all\n@{word} secret\nmore\n@ann hi", "me", ("me", "ann", "coder"), EVERYONE)
    assert [r.word for r in routed.refused] == [word]
    assert [(s.audience, s.content) for s in routed.segments] == [
        (EVERYONE, "all"),
        (Audience.only("ann"), "hi"),
    ]
    assert "perhaps you mean" in str(routed.refused[0])


def test_a_near_miss_among_several_refuses_them_all() -> None:
    assert refused("@ann @codr secret") == ["codr"]
    assert not route("@ann @codr secret", "me", NAMES, EVERYONE).segments


def test_talking_to_oneself_is_refused() -> None:
    assert refused("@coder note to self") == ["coder"]


@pytest.mark.parametrize("text", ["#file: a.txt\nsecret", '#file:"a.txt secret', "#file:\nsecret"])
def test_a_file_without_a_path_is_refused(text: str) -> None:
    routed = route(text, "coder", NAMES, EVERYONE)
    assert len(routed.refused) == 1 and not routed.segments


def test_the_standing_audience_takes_what_is_not_addressed() -> None:
    assert segments("x\n@me y", standing=PRIVATE) == [("direct:anna", "x"), ("direct:me", "y")]


LINES = st.one_of(
    st.sampled_from(
        [
            "```",
            "~~~",
            "````py",
            "@ann",
            "@anna:",
            "@coder",
            "@codr",
            "@group",
            "@me,",
            "#file:a.txt",
            "#file:",
        ]
    ).flatmap(lambda head: st.sampled_from([head, head + " word", " " + head + " word", "    " + head])),
    st.text(alphabet="@#:,. \t`~amnxw\u00a0ö", max_size=12),
)


@given(st.lists(LINES, max_size=14), st.sampled_from([EVERYONE, PRIVATE, Audience.file("f")]))
@example(["@codr ```", "@ann x", "```", "@group y"], EVERYONE)
def test_every_word_is_delivered_to_its_address_or_refused(lines: list[str], standing: Audience) -> None:
    """Each line carries a mark; the audience of the mark is that of the newest address above it."""
    marked = [f"{line} mark{number}x" for number, line in enumerate(lines)]
    routed = route("\n".join(marked), "me", NAMES, standing)
    where = {
        int(mark): segment
        for segment in routed.segments
        for mark in re.findall(r"mark(\d+)x", segment.content)
    }
    owner: Audience | None = standing
    in_code = False  # every line ends with a mark, so nothing closes a block again
    refusals = 0
    for number, line in enumerate(marked):
        found = None if in_code or opens_code(line) else address_of(line, "me", NAMES)
        if found is not None:
            owner = found[0] if isinstance(found[0], Audience) else None
            refusals += owner is None
        in_code = in_code or opens_code(found[1] if found else line)
        assert (where[number].audience if number in where else None) == owner, (number, line)
    assert len(routed.refused) == refusals


def opens_code(line: str) -> bool:
    bare = line.lstrip(" ")
    if len(line) - len(bare) > 3:
        return False
    return bare.startswith("~~~") or (bare.startswith("```") and "`" not in bare.lstrip("`"))


@given(st.text(alphabet="ab@#:\n `~.", max_size=60))
def test_all_that_is_not_an_address_arrives(text: str) -> None:
    """Among people whose names resemble nothing in the text, nothing is lost but blanks at the edges."""
    routed = route(text, "me", ("zzzzzzzz", "yyyyyyyy"), EVERYONE)
    if "#file:" in text.lower() or routed.refused:
        return
    assert "".join(s.content for s in routed.segments).split() == text.split()


@given(st.text(max_size=8), st.text(max_size=8))
def test_edit_distance_is_exact_where_it_matters(a: str, b: str) -> None:
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            )
    exact = table[-1][-1]
    assert edit_distance(a, b) == exact or (exact > NEAR and edit_distance(a, b) > NEAR)


@pytest.mark.parametrize("text", ["PASS", " PASS\n", "**PASS**", "`PASS`", "PASS.", '"PASS"', "*PASS.*"])
def test_passing(text: str) -> None:
    assert is_pass(text)


@pytest.mark.parametrize("text", ["", "pass", "PASS the salt", "I PASS", "PASS PASS", "PASSED", "@ann PASS"])
def test_not_passing(text: str) -> None:
    assert not is_pass(text)


def test_modes() -> None:
    assert parse_mode("group", "me", NAMES) == EVERYONE
    assert parse_mode(" direct:ann ", "me", NAMES) == Audience.only("ann")
    assert parse_mode("direct:@ann, coder", "me", NAMES) == Audience.only("ann", "coder")
    assert parse_mode("file:a b.txt", "me", NAMES) == Audience.file("a b.txt")


@pytest.mark.parametrize(
    "mode", ["", "all", "direct:", "direct:bob", "direct:me", "direct:ann,", "file:", "group:ann", "ann"]
)
def test_no_modes(mode: str) -> None:
    with pytest.raises(UsageError):
        parse_mode(mode, "me", NAMES)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "..", "a/..", " ../x "])
def test_a_standing_file_lies_in_the_workspace(path: str) -> None:
    with pytest.raises(UsageError, match="outside of the workspace") as caught:
        parse_mode(f"file:{path}", "me", NAMES)
    assert "file:notes/a.md" in caught.value.hint
    assert parse_mode("file:a..b/...", "me", NAMES) == Audience.file("a..b/...")
