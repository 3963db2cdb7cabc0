from __future__ import annotations

import pytest

from org.chat.profiles import PROFILES, find, system_prompt
from org.errors import UsageError


@pytest.mark.parametrize("name", list(PROFILES))
def test_prompts_name_who_is_there_and_leave_no_placeholder(name: str) -> None:
    text = system_prompt(find(name), "coder", ["me", "calc"], "Answer in French.")
    assert "You are coder" in text and "@me, @calc" in text and "`@calc your words`" in text
    assert text.endswith("Answer in French.")
    assert "{" not in text


def test_alone_in_the_room() -> None:
    assert "nobody else yet" in system_prompt(find("simple"), "coder", [])


def test_ones_own_part_is_taken_as_it_is() -> None:
    assert system_prompt(find("simple"), "coder", [], "Say {name}.").endswith("Say {name}.")


def test_an_unknown_profile() -> None:
    with pytest.raises(UsageError) as caught:
        find("wizard")
    assert "agent, python, simple" in caught.value.hint
