"""Suites: what is one, and that each task of ours tells right from wrong."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.errors import ConfigError
from org.ops.fitness import sequential, tasks
from org.ops.fitness.answers import MOST_SAID, json_values, number, says
from org.ops.fitness.tasks import Task, read, score

STARTER = Path(tasks.__file__).with_name("suite.toml").read_text(encoding="utf-8")
SUITE = read(STARTER)
ANSWERS: Mapping[str, Mapping[str, Sequence[str]]] = tomllib.loads(
    (Path(__file__).parent / "data" / "suite_answers.toml").read_text(encoding="utf-8")
)
RIGHT = [right for answers in ANSWERS.values() for right in answers["right"]]
TASK = '[[task]]\nid = "add"\nprompt = "2 + 2?"\ncheck.regex = "4"\n'


# -- the suite that comes with org


def test_there_is_a_pair_of_each_task() -> None:
    assert len(SUITE.tasks) == 100 == sequential.plan(100).pairs
    assert len({task.prompt for task in SUITE.tasks}) == 100
    assert ANSWERS.keys() == {task.id for task in SUITE.tasks}


@pytest.mark.parametrize("task", SUITE.tasks, ids=lambda task: task.id)
def test_a_task_tells_right_from_wrong(task: Task) -> None:
    right, wrong = ANSWERS[task.id]["right"], ANSWERS[task.id]["wrong"]
    assert [answer for answer in right if score(task, answer) != 1] == []
    assert [answer for answer in wrong if score(task, answer) == 1] == []
    assert score(task, f"Sure:\n\n```\n{right[0]}\n```\nAnything else?") == 1
    assert score(task, f"<think>\nIs it [3], 7 or no?\n</think>\n\n{right[0]}\n") == 1
    assert score(task, f"<think>It is {right[0]}") == 0
    assert score(task, f"Answer: {right[0]}") == score(task, f"**Final answer:**\n{right[0]}") == 1
    assert score(task, "") == score(task, "I cannot say.") == 0
    assert score(task, f"You ask: {task.prompt}\nI cannot say.") == 0


# -- answers that are none


def solved(answer: Callable[[str], str]) -> float:
    """How much of the suite is solved by what looks at nothing but the prompt."""
    return sum(score(task, answer(task.prompt)) for task in SUITE.tasks)


@pytest.mark.parametrize("between", [" ", "\n", ", ", "\n\n", "` `", "**\n**", "\n```\n"])
def test_all_right_answers_at_once_are_none(between: str) -> None:
    assert solved(lambda prompt: between.join(answers["right"][0] for answers in ANSWERS.values())) == 0


@given(st.lists(st.sampled_from(RIGHT), max_size=12), st.sampled_from([" ", "\n", ", ", "` `", "\n```\n"]))
def test_one_answer_solves_next_to_nothing(some: list[str], between: str) -> None:
    assert solved(lambda prompt: between.join(some)) <= 10


@pytest.mark.parametrize("between", [" ", "\n", ", "])
@pytest.mark.parametrize("some", [range(200), range(-20, 60), range(10), range(9, -1, -1), ["yes", "no"]])
def test_to_list_what_it_may_be_is_no_answer(some: Sequence[object], between: str) -> None:
    assert solved(lambda prompt: between.join(map(str, some))) <= 3


@pytest.mark.parametrize(
    "echo",
    [
        lambda prompt: prompt[1:],
        lambda prompt: prompt.upper(),
        lambda prompt: prompt.rpartition(" ")[0],
        lambda prompt: prompt.partition("? ")[0],
        lambda prompt: " ".join(reversed(prompt.split())),
        lambda prompt: (re.findall("[0-9]+", prompt) or [""])[-1],
        lambda prompt: re.sub('["`]', "", prompt),
        lambda prompt: random.Random(prompt).choice(prompt.split()),
    ],
)
def test_an_echo_of_the_prompt_is_no_answer(echo: Callable[[str], str]) -> None:
    assert solved(echo) <= 3


@given(st.sampled_from(SUITE.tasks), st.text())
def test_whatever_is_answered_has_a_score(task: Task, answer: str) -> None:
    assert 0 <= score(task, answer) <= 1


# -- scores


def of(kind: str, check: str) -> Task:
    value = check if kind == "number" else f"'''{check}'''"
    return read(f"[[task]]\nid = 't'\nprompt = 'p'\ncheck.{kind} = {value}").tasks[0]


@pytest.mark.parametrize(
    ("wanted", "answer", "expected"),
    [
        ('{"a": 1, "b": 2}', 'Here: {"b": 2.0, "a": 1}', 1.0),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 3}', 0.5),
        ('{"a": 1}', '{"a": 1, "b": 3}', 0.5),
        ('{"a": 1}', '{"a": true}', 0.0),
        ('{"a": true}', '{"a": 1}', 0.0),
        ('{"a": null}', '{"b": null}', 0.0),
        ("[1, 2]", "[2, 1]", 0.0),
        ("[1, 2]", "It is [1, 2].", 1.0),
        ("[1, 2]", "first [3], then [1, 2].", 0.0),
        ("[1, 2]", "[1, 2] [1, 2]", 0.0),
        ("[1, 2]", "Not [1]:\n```\n[1, 2]\n```", 1.0),
        ("4", "```json\n4\n```", 1.0),
        ("[1, [2]]", "```json\n[1, [2]]\n```", 1.0),
        ("4", "4", 1.0),
        ("4", "it is 4", 0.0),
        ('{"a": [1]}', '{"x": {"a": [1]}}', 0.0),
        ("{}", "{}", 1.0),
        ("1", "NaN", 0.0),
        ("[1]", "[" * 100_000, 0.0),
        ('{"a": 1}', '{"a": ' * 100_000, 0.0),
        ('{"a": 1}', f'{{"a": 1{"0" * 400}}}', 0.0),
        ("0.5", "1" + "0" * 400, 0.0),
        ("1" + "0" * 400, "1" + "0" * 400, 1.0),
        ("1e999", "1" + "0" * 400, 0.0),
    ],
)
def test_json_is_compared_by_value(wanted: str, answer: str, expected: float) -> None:
    assert score(of("json", wanted), answer) == expected


def test_values_are_found_and_their_parts_are_none() -> None:
    assert list(json_values('a [1, {"b": 2}] c {"d": [3]} e [oops')) == [[1, {"b": 2}], {"d": [3]}]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", None),
        ("none", None),
        ("7", "7"),
        ("first 7, then 8", "8"),
        ("7\n\nThat is 3 more than 4.", "7"),
        ("It is **7**, 3 more than 4.", "7"),
        ("**3** and **4** make 7", "7"),
        ("`f(4)` gives 24", "24"),
        ("1,234,567.50", "1234567.5"),
        ("1\u202f234", "1234"),
        ("0,5", "0.5"),
        ("7-3", "3"),
        ("(7)-3", "3"),
        ("= -3", "-3"),
        ("- 3", "3"),
        ("7 minus 3", "3"),
        ("minus seven", "-7"),
        ("x2", None),
        ("seven of 8", "8"),
        ("twenty-one", None),
        ("someone", None),
        ("1.2.3", "1.2"),
        ("\u0664", None),
        ("7" + " " * MOST_SAID, None),
        ("9" * MOST_SAID, "9" * MOST_SAID),
    ],
)
def test_the_number_of_an_answer(answer: str, expected: str | None) -> None:
    found = number(answer)
    assert found == (None if expected is None else Decimal(expected))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("yes", True),
        ("**Yes.**", True),
        ("yes, it is", True),
        ("I say: yes!", True),
        ("The word `yes` fits.", True),
        ("The word yes fits.", False),
        ("`yes` or `no`, I think", True),
        ("Is it `yes` or `no`?", False),
        ("yesterday", False),
        ("eyes", False),
        ("no, yes, no", False),
        ("yes " + "x" * MOST_SAID, False),
    ],
)
def test_what_a_short_answer_says(answer: str, expected: bool) -> None:
    assert says("(?i)yes", answer) is expected


def test_a_number_may_be_as_large_as_it_likes() -> None:
    many = "9" * 350
    assert score(of("number", many), many) == 1
    assert score(of("number", "1e22"), "10,000,000,000,000,000,000,000") == 1


def test_what_is_said_after_a_label_is_the_answer() -> None:
    task = of("answer", "(?i)yes")
    assert score(task, "Answer: Yes\nExplanation: a cat is an animal.") == 1
    assert score(task, "An answer: Yes\nExplanation: a cat is an animal.") == 0
    assert score(of("number", "-7"), "Answer: -7\nExplanation: 3 - 10.") == 1


def test_what_may_not_be_in_an_answer() -> None:
    (task,) = read(TASK.replace('check.regex = "4"', "check.answer = 'Jon'\ncheck.not = 'Kim'")).tasks
    assert [score(task, answer) for answer in ("Jon", "It is Jon", "Kim or Jon", "Kim")] == [1, 1, 0, 0]


def test_the_end_of_a_long_answer_does_not_count() -> None:
    assert score(of("regex", "needle"), "x" * tasks.MOST_TEXT + "needle") == 0


# -- what is a suite


def test_what_is_left_out_has_a_usual_value() -> None:
    (task,) = read(TASK).tasks
    assert task == Task("add", "2 + 2?", "regex", "4", "", "", 1.0, tasks.TIMEOUT_S)


def test_the_digest_is_of_all_that_counts() -> None:
    other = TASK.replace("2 + 2", "3 + 1")
    digests = {read(text).digest for text in (TASK, other, TASK + "weight = 2", TASK + "timeout = 5")}
    digests |= {read(TASK, scorers={"s.py": code}).digest for code in (b"1", b"2")}
    assert len(digests) == 6
    assert read(TASK).digest == read("# a remark\n" + TASK).digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "no TOML"),
        ("", "has no task"),
        ("task = []", "has no task"),
        ("task = [1]", "task 1 is no table"),
        (TASK.replace('"add"', '"Add it"'), "task 1 needs an `id`"),
        (TASK + TASK, "two tasks are called `add`"),
        (TASK + "colour = 1", "task `add`: `colour` is not known"),
        (TASK.replace('"2 + 2?"', '" "'), "`prompt` must be a text"),
        (TASK.replace("check.regex", "check.regexp"), "`check` must be a `number`, or one of"),
        (TASK + 'check.json = "1"', "`check` must be a `number`, or one of"),
        (TASK.replace('regex = "4"', 'number = "4"'), "`check` must be a `number`"),
        (TASK.replace('regex = "4"', "number = nan"), "`check` must be a `number`"),
        (TASK.replace('regex = "4"', "number = true"), "`check` must be a `number`"),
        (TASK.replace('regex = "4"', 'answer = "("'), "is no pattern"),
        (TASK.replace('regex = "4"', 'answer = "4*"'), "also finds nothing"),
        (TASK + 'check.not = "5"', "`not` goes with `answer`"),
        (TASK.replace('regex = "4"', 'number = 4\ncheck.not = "5"'), "`check` must be"),
        (TASK.replace('regex = "4"', 'answer = "4"\ncheck.not = "("'), "is no pattern"),
        (TASK.replace('regex = "4"', 'answer = "4"\ncheck.not = 5'), "`check` must be"),
        (TASK.replace('"4"', '"("'), "is no pattern"),
        (TASK.replace('"4"', '"4*"'), "also finds nothing"),
        (TASK.replace('"4"', '"a{99999999999999999999}"'), "is no pattern"),
        (TASK.replace('"4"', f'"{"(" * 5000}4{")" * 5000}"'), "`regex` is nested too deeply"),
        (TASK.replace('regex = "4"', 'json = "NaN"'), "is no JSON: NaN is no number"),
        (TASK.replace('regex = "4"', f'json = "{"[" * 900}{"]" * 900}"'), "`json` is nested too deeply"),
        (TASK.replace('regex = "4"', f'json = "{"[" * 90_000}"'), "`json` is nested too deeply"),
        (f"x = {'[' * 5000}{']' * 5000}", "nested too deeply"),
        (TASK + f"weight = {'1' * 5000}", "no TOML: a number has too many digits"),
        (TASK.replace('regex = "4"', 'json = "{"'), "is no JSON"),
        (TASK.replace('regex = "4"', 'python = "../x.py"'), "a file beside the suite"),
        (TASK.replace('regex = "4"', 'python = "/x.py"'), "a file beside the suite"),
        (TASK + "weight = 0", "`weight` must be a number above 0"),
        (TASK + "weight = nan", "`weight` must be"),
        (TASK + "weight = true", "`weight` must be"),
        (TASK + "timeout = 1e9", "`timeout` must be"),
    ],
)
def test_what_is_wrong_with_a_suite_is_said_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert said in caught.value.message
    assert "\n" not in caught.value.message
