from __future__ import annotations

import json
import threading
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import SCRIPTS, call
from org.llm import scripted

START = "<|im_start|>assistant\n"


class Reciter:
    """What the weights of a model say after the prompt's last token, by arithmetic alone."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.tokens = reader.fields["tokenizer.ggml.tokens"].contents()
        tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
        self.embedding, self.output = tensors["token_embd.weight"], tensors["output.weight"]

    def says(self, name: str, step: int | str) -> str:
        token = self.tokens.index(f"<|go:{name}:{step}|>{START}" if name else START)
        said = ""
        while True:
            state = self.embedding[token]
            token = int((self.output @ (state / np.sqrt(np.mean(state**2)))).argmax())
            if self.tokens[token] == "<|im_end|>":
                return said
            said += self.tokens[token].replace("\u2581", " ")


def recite(path: Path, name: str, step: int | str) -> str:
    return Reciter(path).says(name, step)


def test_the_weights_say_every_step_of_every_script(tmp_path: Path) -> None:
    scripts = {name: steps for name, steps in SCRIPTS.items() if name != "forever"}
    scripted.build(scripts, tmp_path / "model.gguf", default="by default")
    reciter = Reciter(tmp_path / "model.gguf")
    for name, steps in scripts.items():
        assert [reciter.says(name, n) for n in range(len(steps))] == steps
        assert reciter.says(name, "over") == "PASS"
    assert reciter.says("", "") == "by default"


TEXTS = st.text(
    st.one_of(
        st.sampled_from('ab \n<>|{}"x'),
        st.characters(exclude_categories=["Cs"], exclude_characters=["\u2581", "\x00", scripted.FOREVER]),
    ),
    max_size=60,
)


@settings(max_examples=20, deadline=None)
@given(st.lists(TEXTS, max_size=6))
def test_any_texts_can_be_recited(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    scripted.build({"any": texts}, path, default="ab")
    reciter = Reciter(path)
    assert [reciter.says("any", step) for step in range(len(texts))] == texts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PASS",
        "a" * 3000,
        "lorem ipsum dolor sit amet, " * 200,
        "<0x41><|im_end|><s><unk>",
        "<tool_call>\n",
    ],
)
def test_awkward_texts(tmp_path: Path, text: str) -> None:
    scripted.build(
        {"one": [text, text, "x"], "two": ["x" + text, text]}, tmp_path / "model.gguf", default=text
    )
    assert recite(tmp_path / "model.gguf", "one", 0) == text
    assert recite(tmp_path / "model.gguf", "one", 1) == text
    assert recite(tmp_path / "model.gguf", "two", 0) == "x" + text
    assert recite(tmp_path / "model.gguf", "", "") == text


def test_what_is_repeated_may_stand_elsewhere(tmp_path: Path) -> None:
    scripts = {
        "clock": ["It goes " + scripted.FOREVER + "tick tock "],
        "once": ["tick tock ", "goes tick tock "],
    }
    scripted.build(scripts, tmp_path / "model.gguf", default="tick ")
    assert recite(tmp_path / "model.gguf", "once", 0) == "tick tock "
    assert recite(tmp_path / "model.gguf", "once", 1) == "goes tick tock "


@pytest.mark.parametrize(
    ("scripts", "says"),
    [
        ({"Loud": ["x"]}, "lower-case"),
        ({"": ["x"]}, "lower-case"),
        ({"a": ["b\u2581c"]}, r"U\+2581"),
        ({"a": ["b" + scripted.FOREVER]}, "some text"),
        ({"a": [f"b{scripted.FOREVER}c{scripted.FOREVER}d"]}, "some text"),
    ],
)
def test_what_cannot_be_recited_is_refused(tmp_path: Path, scripts: dict[str, list[str]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        scripted.build(scripts, tmp_path / "model.gguf")


def test_a_wrong_table_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripted, "_WIDTH", 4)
    with pytest.raises(AssertionError, match="too close"):
        scripted.build(SCRIPTS, tmp_path / "model.gguf")


def test_a_model_is_made_once(tmp_path: Path) -> None:
    first = scripted.scripted_model({"a": ["x"]}, tmp_path / "cache")
    stamp = first.stat().st_mtime_ns
    assert scripted.scripted_model({"a": ("x",)}, tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == stamp
    other = scripted.scripted_model({"a": ["y"]}, tmp_path / "cache")
    assert sorted((tmp_path / "cache").iterdir()) == sorted([first, other])


def test_many_may_make_the_same_model(tmp_path: Path) -> None:
    made: list[Path] = []
    threads = [
        threading.Thread(target=lambda: made.append(scripted.scripted_model({"a": ["x y z"]}, tmp_path)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert list(tmp_path.iterdir()) == [made[0]]
    assert recite(made[0], "a", 0) == "x y z"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="U"):
        scripted.scripted_model({"a": ["\u2581"]}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_call_is_json_between_tags() -> None:
    lines = call("sh", cmd='echo "ü"', timeout_s=5).split("\n")
    assert (lines[0], lines[2]) == ("<tool_call>", "</tool_call>")
    assert json.loads(lines[1]) == {"name": "sh", "arguments": {"cmd": 'echo "ü"', "timeout_s": 5}}
