"""A tiny real model that recites: GGUF files for tests and for the demo.

The file is a one-layer llama whose attention and feed-forward outputs are zero, so the next token
is a function of the current one alone. Scripts are cut into chunks, each chunk is a token of the
vocabulary, and the weights hold the table "this token, then that one". All that surrounds the
weights is real: tokenizer, chat template, sampling, the server's grammar and tool-call parser.

The chat template picks what is said. A marker `[[name]]` in the first system message names the
script (the last known one counts), and the number of assistant messages so far is the step. That
choice becomes the last token of the prompt, which is where the table takes over. Messages of other
roles choose nothing, whatever they contain.

What a script cannot say: U+2581, the tokenizer's spelling of a space. The keys of a scripted
tool call must stand in the order of the tool's schema, since the server's grammar insists on it.

Importing this module needs `gguf` and `numpy` of the extra `embedded`; without them it raises
`EnvironmentProblem`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from org.errors import EnvironmentProblem

try:
    import gguf
    import numpy as np
    from numpy.typing import NDArray
except ImportError as missing:
    raise EnvironmentProblem(
        f"the embedded engine is not installed: no package `{missing.name}`",
        "install org with its extra, in its source folder: pipx install --force '.[embedded]'",
    ) from missing

FORMAT = 1
"""Part of every cache key: count it up when the files that `build` writes change."""

DEFAULT = "I only recite scripts, and nothing here names one of mine."
OVER = "PASS"
"""What a script says after its last step."""

FOREVER = "\x1e"
"""Inside a step: what follows is repeated until the request's token limit, or until it is cancelled."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_WIDTH = 64  # of the embedding; random unit vectors of this width stay well apart
_HEAD = 16
_FEED = 32
_SCALE = 200.0  # the logit of the right token; keeps the others > 10 below it, whatever the sampling
_GAP = 10.0
_CONTEXT = 131_072
# The server wants a tag that is one token to be a special one, and it is not: tags are cut.
_TAG = re.compile(r"\s*</?\w+>\s*")
_PIECE = 12  # characters of a chunk, where the text lets us choose
_WORD = re.compile(rf"\s*\S{{1,{_PIECE}}}")

_START = "<|im_start|>"
_END = "<|im_end|>"
_OPEN = _START + "assistant\n"

# Frequent words of prompts, tool schemas and transcripts. A prompt costs time by its tokens; with
# these it has about one for three or four bytes, as with an ordinary model, instead of one a byte.
_WORDS = """
the of and to a in is it you that he was for on are with as his they be at one have this from or had by
but some what there we can out other were all your when up use word how said an each she which do their
time if will way about many then them would like so these her long make thing see him two has look more
day could go come did my no most who been call than first may down side now find any new work part take
get place made where after back only me our under through line name before each same right too also here
read text file files write written path command commands run runs running shell output input result
results error errors exit code python answer answers short person people model models room rooms message
messages tool tools call calls name names argument arguments string number integer object array type
function parameters properties description required default value values true false null none list group
direct address addressed participant participants role user system assistant content response think
timeout seconds limit line lines start starts end ends sandbox workspace folder print import return def
class self while else not into over every nobody everyone private never always must should without
between because question task step steps say says tell ask need nothing something please done {"type":
"function", "function": {"name": "description": "parameters": {"type": "object", "properties": {"type":
"string", "number", "integer", "required": ["cmd", "timeout_s": "code", "mode": "arguments": {"cmd":
{"code": {"mode": {"tool_calls":
"""


def build(
    scripts: Mapping[str, Sequence[str]],
    path: Path,
    *,
    default: str = DEFAULT,
) -> None:
    """Write a model that recites `scripts` (name -> what it says at each step) to `path`.

    `default` is said when no script is named.

    Raises `ValueError` for a name or a text that cannot be recited.
    """
    for name in scripts:
        if not _NAME.fullmatch(name):
            raise ValueError(f"a script's name is lower-case letters, digits, - and _: {name!r}")
    spoken = {_OPEN: default}  # last token of the prompt -> what follows it
    for name, steps in scripts.items():
        for step, text in [*enumerate(steps), ("over", OVER)]:
            spoken[f"<|go:{name}:{step}|>{_OPEN}"] = text
    table = _Table(spoken)
    for go, text in spoken.items():
        table.check(go, text)
    _write(path, table, {name: len(steps) for name, steps in scripts.items()})


def scripted_model(
    scripts: Mapping[str, Sequence[str]],
    cache_dir: Path,
    *,
    default: str = DEFAULT,
) -> Path:
    """The file that `build` makes for `scripts`, made once per `cache_dir` and content.

    Any number of processes may ask at the same time. Raises `ValueError` like `build`.
    """
    content = json.dumps([FORMAT, {n: list(s) for n, s in scripts.items()}, default])
    path = cache_dir / f"scripted-{hashlib.sha256(content.encode()).hexdigest()[:20]}.gguf"
    if path.exists():
        return path
    cache_dir.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="building-", suffix=".gguf", dir=cache_dir)
    os.close(handle)
    try:
        build(scripts, Path(name), default=default)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    return path


class _Table:
    """The vocabulary, and for each token the one that follows it.

    A state is a text that remains to be said. A token is a chunk of text and leads to one state
    only, so the same chunk may stand in two places only where the same text follows.
    """

    def __init__(self, spoken: Mapping[str, str]) -> None:
        self.texts: list[str] = []
        self.kinds: list[int] = []
        self.scores: list[float] = []
        self._ids: dict[str, int] = {}
        self._heads: dict[_State, int] = {}  # state -> the token that begins to say it
        self._leads: dict[int, _State] = {}  # token -> the state after it
        self._add("<unk>", gguf.TokenType.UNKNOWN)
        self._add("<s>", gguf.TokenType.CONTROL)
        self.end = self._add(_END, gguf.TokenType.CONTROL)
        self._add(_START, gguf.TokenType.CONTROL)
        for byte in range(256):
            self._add(f"<0x{byte:02X}>", gguf.TokenType.BYTE)
        for go in spoken:
            self._add(go, gguf.TokenType.CONTROL)
        self._reserved = len(self.texts)
        self._heads[_SAID] = self.end
        # The shortest first: then the whole of a text is always free to be one chunk.
        for text in sorted(set(spoken.values()), key=lambda text: (FOREVER not in text, len(text), text)):
            self._cut(text)
        for go, text in spoken.items():
            self._leads[self._ids[go]] = _states(text)[0]
        # What one participant says stands in the prompts of the others.
        self._read(" ".join([_WORDS, *spoken.values()]))

    def successors(self) -> NDArray[np.int64]:
        """For each token the id of the next one; tokens that are only read lead to the end."""
        following = np.full(len(self.texts), self.end)
        for token, state in self._leads.items():
            following[token] = self._heads[state]
        return following

    def check(self, go: str, text: str) -> None:
        """Recite `text` from the token `go`, as the server will. Raises `AssertionError`."""
        head, forever, tail = text.partition(FOREVER)
        want = head + tail
        said, state = "", self._leads[self._ids[go]]
        while state != _SAID and len(said) < len(want):
            token = self._heads[state]
            said += self.texts[token].replace("\u2581", " ")
            state = self._leads[token]
        if said != want or (state == _SAID) == bool(forever and tail):
            raise AssertionError(f"the table says {said!r} where the script has {text!r}")

    def _add(self, text: str, kind: int) -> int:
        self._ids[text] = len(self.texts)
        self.texts.append(text)
        self.kinds.append(kind)
        self.scores.append(-1.0)
        return self._ids[text]

    def _token(self, text: str) -> int:
        spelled = text.replace(" ", "\u2581")
        known = self._ids.get(spelled)
        return self._add(spelled, gguf.TokenType.NORMAL) if known is None else known

    def _cut(self, text: str) -> None:
        """Make `text` sayable: cut it into chunks that are free to lead where it goes on."""
        if "\u2581" in text:
            raise ValueError(f"a script cannot say U+2581: {text[:60]!r}")
        head, forever, tail = text.partition(FOREVER)
        if forever and (not tail or FOREVER in tail):
            raise ValueError(f"a script repeats what follows FOREVER, which must be some text: {text[:60]!r}")
        states = _states(text)
        if tail and states[len(head)] not in self._heads:
            self._claim(tail, states[len(head)], states[len(head)])
        chosen: list[tuple[int, Iterator[int]]] = []  # where a chunk begins, and the ends left to try
        claims: dict[str, _State] = {}
        begin = 0
        ends = _ends(head, 0)
        while states[begin] not in self._heads:
            end = next((e for e in ends if self._free(head[begin:e], states[e], claims)), None)
            if end is not None:
                chosen.append((begin, ends))
                claims[head[begin:end]] = states[end]
                begin, ends = end, _ends(head, end)
            elif chosen:
                last = begin
                begin, ends = chosen.pop()
                del claims[head[begin:last]]
            else:
                raise ValueError(f"a script cannot be cut into chunks of its own: {text[:60]!r}")
        bounds = [begin for begin, _ in chosen] + [begin]
        for start, stop in pairwise(bounds):
            self._claim(head[start:stop], states[start], states[stop])

    def _free(self, chunk: str, leads: _State, claims: Mapping[str, _State]) -> bool:
        token = self._ids.get(chunk.replace(" ", "\u2581"))
        if chunk in claims or _TAG.fullmatch(chunk) or (token is not None and token < self._reserved):
            return False
        return token is None or token not in self._leads or self._leads[token] == leads

    def _claim(self, chunk: str, state: _State, leads: _State) -> None:
        if not self._free(chunk, leads, {}):
            raise ValueError(f"two scripts need the same chunk for different ends: {chunk[:60]!r}")
        token = self._token(chunk)
        self._leads[token] = leads
        self._heads[state] = token

    def _read(self, text: str) -> None:
        """Let the tokenizer take each word of `text` in one piece.

        It joins the best pair that is a token, the leftmost of equals, again and again; so a word
        is one token when all its beginnings are tokens too, and better than others.
        """
        for word in sorted(set(re.findall(r"\w+|[^\w\s\u2581\x1e]{1,4}", text))):
            for spelled in (word, " " + word):
                for end in range(1, min(len(spelled), _PIECE) + 1):
                    self.scores[self._token(spelled[:end])] = 0.0


_State = tuple[int, int]  # length and hash of the text that remains
_SAID: _State = (0, 0)


def _states(text: str) -> list[_State]:
    """The state at each position of `text` before FOREVER, and the one after its last character.

    Hashes of the remaining texts take linear time where the texts themselves would take quadratic;
    `_Table.check` would notice two different texts with the same hash.
    """
    head, _, tail = text.partition(FOREVER)
    # A repeated text is a state of its own, unlike any that comes to an end.
    state = (-1, _hash(tail)) if tail else _SAID
    states = [state]
    for char in reversed(head):
        length, value = state
        state = (length - 1 if tail else length + 1, (value * 1_114_117 + ord(char) + 1) % _MODULUS)
        states.append(state)
    states.reverse()
    return states


_MODULUS = 2**89 - 1


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:10], "big")


def _ends(text: str, begin: int) -> Iterator[int]:
    """Where a chunk that begins at `begin` may end: after its word first, then ever later.

    The last one, all that remains, is nearly always free, so that few ways are tried. Ends within
    the word are worth trying only where that leaves few ways.
    """
    word = _WORD.match(text, begin)
    first = word.end() if word else len(text)
    yield from range(first, len(text) + 1)
    if len(text) - begin <= _PIECE:
        yield from range(first - 1, begin, -1)


def _write(path: Path, table: _Table, steps: Mapping[str, int]) -> None:
    size = len(table.texts)
    following = table.successors()
    directions = np.random.default_rng(1).standard_normal((size, _WIDTH), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # After normalisation a token's state is sqrt(width) long and points at its successor.
    embedding = directions[following]
    output = directions * np.float32(_SCALE / np.sqrt(_WIDTH))
    _check_gap(embedding, output, following)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("scripted")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_FEED)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_key_length(_HEAD)
    writer.add_value_length(_HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(_HEAD)
    writer.add_vocab_size(size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text.encode() for text in table.texts])
    writer.add_token_scores(table.scores)
    writer.add_token_types(table.kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(table.end)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    template = Path(__file__).with_suffix(".jinja").read_text("utf-8")
    writer.add_chat_template(template.replace("@STEPS@", json.dumps(steps)))
    for name, tensor in [
        ("token_embd.weight", embedding),
        ("output_norm.weight", np.ones(_WIDTH, np.float32)),
        ("output.weight", output),
        ("blk.0.attn_norm.weight", np.ones(_WIDTH, np.float32)),
        ("blk.0.attn_q.weight", np.zeros((_HEAD, _WIDTH), np.float32)),
        ("blk.0.attn_k.weight", np.zeros((_HEAD, _WIDTH), np.float32)),
        ("blk.0.attn_v.weight", np.zeros((_HEAD, _WIDTH), np.float32)),
        ("blk.0.attn_output.weight", np.zeros((_WIDTH, _HEAD), np.float32)),
        ("blk.0.ffn_norm.weight", np.ones(_WIDTH, np.float32)),
        ("blk.0.ffn_gate.weight", np.zeros((_FEED, _WIDTH), np.float32)),
        ("blk.0.ffn_up.weight", np.zeros((_FEED, _WIDTH), np.float32)),
        ("blk.0.ffn_down.weight", np.zeros((_WIDTH, _FEED), np.float32)),
    ]:
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _check_gap(
    embedding: NDArray[np.float32], output: NDArray[np.float32], following: NDArray[np.int64]
) -> None:
    """Raise `AssertionError` unless each token's successor wins by a margin no sampler overturns."""
    wanted, tokens = np.unique(following, return_index=True)
    for part in np.array_split(np.arange(len(wanted)), 1 + len(wanted) // 1024):
        logits = embedding[tokens[part]] * np.float32(np.sqrt(_WIDTH)) @ output.T
        rows = np.arange(len(part))
        right = logits[rows, wanted[part]]
        logits[rows, wanted[part]] = -np.inf
        if (right - logits.max(axis=1)).min() < _GAP:
            raise AssertionError("the directions of two tokens are too close; change the seed or the width")
