"""Where each setting comes from, what a project's file may not do, and how mistakes are named."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from org.cli import config as config_verb
from org.cli import init as init_verb
from org.cli import trust as trust_verb
from org.config import (
    Limits,
    MachineChoice,
    Member,
    SandboxChoice,
    Settings,
    Timeouts,
    ToolPolicies,
    base_url,
    is_loopback,
    load,
    parse_with,
    starter_toml,
)
from org.config.files import parse_file
from org.config.schema import DEFAULT_ROSTER, KEYS
from org.config.trust import TRUST_FILE
from org.errors import ConfigError, EnvironmentProblem, UsageError


class Home:
    """A person's home with a project in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.project = path / "code" / "project"
        self.project.mkdir(parents=True)
        self.env: dict[str, str] = {"HOME": str(path), "USER": "ada"}
        self.state = path / ".local" / "state" / "org"

    def user(self, text: str) -> Path:
        path = self.path / ".config" / "org" / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def file(self, text: str) -> Path:
        path = self.project / "org.toml"
        path.write_text(text)
        return path

    def load(
        self, cwd: Path | None = None, /, *, flags: Mapping[str, object] | None = None, **env: str
    ) -> Settings:
        return load(cwd=cwd or self.project, flags=flags or {}, env={**self.env, **env})

    def error(self, **env: str) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            load(cwd=self.project, flags={}, env={**self.env, **env})
        return caught.value


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


# -- precedence


def test_without_anything_every_value_is_the_tables_default(home: Home) -> None:
    settings = home.load()
    assert settings.model is None
    assert settings.base == "http://127.0.0.1:11434/v1"
    assert settings.limits == Limits(turns=30, seconds=900, tokens=200_000, tools=60, steps=16)
    assert settings.participants == DEFAULT_ROSTER
    assert [member.id for member in settings.participants] == ["coder", "calc", "guide"]
    assert settings.name == "ada"
    assert settings.per_model == 1
    assert set(settings.sources.values()) == {"default"}
    assert settings.warnings == ()


@pytest.mark.parametrize("known", range(1, 6))
def test_the_first_of_flag_environment_project_user_default_wins(home: Home, known: int) -> None:
    layers: list[tuple[str | None, str]] = [(None, "default")]
    flags = {}
    env = {}
    if known >= 2:
        layers.append(("by-user", str(home.user('model = "by-user"'))))
    if known >= 3:
        layers.append(("by-project", str(home.file('model = "by-project"'))))
    if known >= 4:
        env = {"ORG_MODEL": "by-env"}
        layers.append(("by-env", "environment ORG_MODEL"))
    if known >= 5:
        flags = {"model": "by-flag"}
        layers.append(("by-flag", "flag"))
    settings = home.load(flags=flags, **env)
    assert (settings.model, settings.sources["model"]) == layers[-1]


def test_a_flag_that_was_not_given_sets_nothing(home: Home) -> None:
    assert home.load(flags={"model": None, "with": None}).sources["model"] == "default"


def test_every_field_of_the_settings_is_in_the_table(home: Home) -> None:
    parts = {
        "limits": Limits,
        "tools": ToolPolicies,
        "sandbox": SandboxChoice,
        "vm": MachineChoice,
        "client": Timeouts,
    }
    for prefix, kind in parts.items():
        assert {field.name for field in dataclasses.fields(kind)} == {
            key.name.split(".")[1] for key in KEYS if key.name.startswith(prefix + ".")
        }
    assert {entry.key for entry in home.load().entries()} == {key.name for key in KEYS} | {"participant"}


def test_every_key_can_be_set_by_the_users_file(home: Home) -> None:
    home.user("""
        model = "m"
        base = "http://there:8080"
        policy = "mention"
        name = "grace"
        context_tokens = 9
        parallel = 2
        per_model = 3
        limits = { turns = 1, seconds = 2.5, tokens = 3, tools = 4, steps = 5 }
        tools = { sh = "ask", python_run = "off", chat_mode = "ask", embedded = "off" }
        sandbox = { place = "vm", require = true }
        vm = { mirror = "https://near.example:8080/debian/" }
        client = { idle_timeout_s = 7, connect_timeout_s = 0.5 }
        [[participant]]
        id = "a-1"
        profile = "simple"
        model = "n"
        base = "other:1"
        system = "Be brief."
        temperature = 0
        max_tokens = 12
        [generation]
        start = ["python3", "app.py"]
    """)
    settings = home.load()
    assert settings.limits == Limits(1, 2.5, 3, 4, 5)
    assert settings.tools == ToolPolicies("ask", "off", "ask", "off")
    assert settings.sandbox == SandboxChoice("vm", True)
    assert settings.vm == MachineChoice("https://near.example:8080/debian")
    assert settings.client == Timeouts(7, 0.5)
    assert settings.participants == (Member("a-1", "simple", "n", "http://other:1/v1", "Be brief.", 0, 12),)
    assert (settings.base, settings.policy, settings.name) == ("http://there:8080/v1", "mention", "grace")
    assert "default" not in settings.sources.values()


def test_with_replaces_the_roster(home: Home) -> None:
    settings = home.load(flags={"with": ["coder=agent:qwen3:8b", "calc=python"]})
    assert settings.participants == (Member("coder", "agent", "qwen3:8b"), Member("calc", "python"))
    assert settings.sources["participant"] == "flag"


def test_a_model_may_hold_colons_and_slashes() -> None:
    assert parse_with("c=agent:hf.co/org/qwen3:8b-q4").model == "hf.co/org/qwen3:8b-q4"


@pytest.mark.parametrize(
    "text", ["coder", "coder=", "coder=boss", "=agent", "Co der=agent", "c=agent:", "group=agent"]
)
def test_a_bad_with_says_what_was_expected(home: Home, text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--with .*expected"):
        home.load(flags={"with": [text]})


def test_two_participants_of_one_id_are_refused(home: Home) -> None:
    with pytest.raises(ConfigError, match="two participants with the id `a`"):
        home.load(flags={"with": ["a=agent", "a=python"]})


def test_yes_runs_what_would_be_asked_and_leaves_off_what_is_off(home: Home) -> None:
    home.user('[tools]\nsh = "ask"\npython_run = "off"')
    settings = home.load(flags={"yes": True})
    assert (settings.tools.sh, settings.tools.python_run) == ("run", "off")
    assert settings.sources["tools.sh"] == "flag"
    assert home.load(flags={"yes": False}).tools.sh == "ask"


# -- the person's name


@pytest.mark.parametrize(
    ("login", "name"),
    [("ada", "ada"), ("Ada Lovelace", "ada-lovelace"), ("", "me"), ("42", "me"), ("group", "me"),
     ("日本", "me"), ("calc", "me"), ("a" * 40, "me")],
)  # fmt: skip
def test_the_own_name_comes_from_the_login_when_that_makes_an_id(home: Home, login: str, name: str) -> None:
    assert home.load(USER=login).name == name


def test_a_chosen_name_that_a_participant_has_is_refused(home: Home) -> None:
    home.user('name = "calc"')
    assert "a participant has the id `calc` too" in home.error().message


# -- the server's address


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("host", "http://host:11434/v1"),
        (":8080", "http://127.0.0.1:8080/v1"),
        ("host:8080", "http://host:8080/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080/v1"),
        ("::1", "http://[::1]:11434/v1"),
        ("::", "http://[::1]:11434/v1"),
        ("[::]:8080", "http://[::1]:8080/v1"),
        ("http://host", "http://host/v1"),
        ("http://host:8080", "http://host:8080/v1"),
        ("http://host:80/", "http://host/v1"),
        ("https://host", "https://host/v1"),
        ("https://host:8443/ollama/", "https://host:8443/ollama/v1"),
        ("HTTP://Host:8080/v1", "http://host:8080/v1"),
        ("host/path", "http://host:11434/path/v1"),
        (" 10.0.0.2 ", "http://10.0.0.2:11434/v1"),
    ],
)
def test_ollama_host_in_all_its_forms(home: Home, text: str, url: str) -> None:
    settings = home.load(OLLAMA_HOST=text)
    assert settings.base == url
    assert settings.sources["base"] == "environment OLLAMA_HOST"


def test_a_path_of_another_servers_base_is_kept(home: Home) -> None:
    assert home.load(OPENAI_BASE_URL="https://there/v1beta/openai/").base == "https://there/v1beta/openai"


@given(
    st.sampled_from(["", "http://", "https://"]),
    st.sampled_from(["localhost", "127.0.0.1", "gpu-box.lan", "[::1]", "[fe80::1]", "0.0.0.0", "10.1.2.3"]),
    st.none() | st.integers(1, 65535),
    st.sampled_from(["", "/", "/v1", "/ollama", "/a/b/"]),
    st.booleans(),
)
def test_what_a_base_url_means_stays_when_it_is_read_again(
    scheme: str, host: str, port: int | None, path: str, ollama: bool
) -> None:
    written = f"{scheme}{host}{'' if port is None else f':{port}'}{path}"
    url = base_url(written, ollama=ollama)
    assert base_url(url, ollama=ollama) == url
    assert re.fullmatch(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:\d+)?/\S+[^/]", url)
    assert is_loopback(url) == (host in {"localhost", "127.0.0.1", "[::1]", "0.0.0.0"})


@given(st.text(max_size=30))
def test_any_text_is_a_base_url_or_refused(text: str) -> None:
    try:
        url = base_url(text)
    except ValueError:
        return
    assert base_url(url) == url


@pytest.mark.parametrize(
    "text",
    ["", " ", "http://", "ftp://host", "http://a@b", "http://127.0.0.1@evil.example", "host:0", "host:70000",
     "http://host?x", "http://host#x", "http://ho st", "http://127.0.0.1\\@evil.example", "host:port", "http://[::1",
     "http://a..b", f"http://{'a' * 64}", f"http://{'a.' * 127}a"],
)  # fmt: skip
def test_what_is_no_base_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the words are those of the key, added by whoever asked
        base_url(text)


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "128.0.0.1", "evil.example/127.0.0.1"],
)
def test_what_only_looks_local_is_not(text: str) -> None:
    assert not is_loopback(base_url(text))


def test_the_own_variables_come_before_ollamas_and_openais(home: Home) -> None:
    env = {"OPENAI_BASE_URL": "http://d/v1", "OLLAMA_HOST": "c", "OLLAMA_BASE": "b", "ORG_BASE": "http://a"}
    for variable in reversed(env):
        assert _base_source(home, env) == f"environment {variable}"
        env[variable] = ""  # set but empty counts as not set
    assert _base_source(home, env) == "default"


def _base_source(home: Home, env: Mapping[str, str]) -> str:
    return load(cwd=home.project, flags={}, env={**home.env, **env}).sources["base"]


# -- the API key


def test_the_key_is_nowhere_to_be_read(home: Home) -> None:
    settings = home.load(ORG_API_KEY="s3cret", ORG_BASE="http://there")
    assert settings.api_key("http://there/v1") == "s3cret"
    shown = repr(settings) + config_verb.as_table(settings) + config_verb.as_json(settings)
    assert "s3cret" not in shown
    assert "environment ORG_API_KEY" in shown


def test_the_key_goes_to_the_chosen_server_only(home: Home) -> None:
    settings = home.load(OPENAI_API_KEY="k", OPENAI_BASE_URL="https://there/v1")
    assert settings.api_key("https://there/v1") == "k"
    assert settings.api_key("https://elsewhere/v1") == ""
    assert settings.api_key("https://there:8443/v1") == ""
    assert settings.api_key("http://there/v1") == ""


def test_a_key_for_openai_does_not_go_to_an_ollama_nobody_named_for_it(home: Home) -> None:
    assert home.load(OPENAI_API_KEY="k").api_key("http://127.0.0.1:11434/v1") == ""
    assert home.load(OPENAI_API_KEY="k", OLLAMA_HOST="there").api_key("http://there:11434/v1") == ""


def test_a_key_in_a_file_is_refused(home: Home) -> None:
    home.user('api_key = "k"')
    assert "ORG_API_KEY" in home.error().hint


@pytest.mark.parametrize(
    "key", ["s3cret\nX-Other: 1", "s3cret s3cret", " ", "s3cret\N{SNOWMAN}", "s3cret\xe9", "s3cret\x00"]
)
@pytest.mark.parametrize("variable", ["ORG_API_KEY", "OPENAI_API_KEY"])
def test_a_key_that_no_request_can_hold_is_refused_and_not_shown(home: Home, variable: str, key: str) -> None:
    error = home.error(**{variable: key}, ORG_BASE="http://there")
    assert variable in error.message
    assert "s3cret" not in repr(error) + error.hint


def test_a_password_in_a_url_is_not_repeated(home: Home) -> None:
    error = home.error(ORG_BASE="http://ada:s3cret@there")
    assert "s3cret" not in str(error)
    assert "ORG_BASE" in str(error)


# -- trust


GUARDED = {
    'base = "http://evil.example"': ("base", "http://127.0.0.1:11434/v1"),
    "[limits]\nturns = 31": ("limits.turns", 30),
    "[limits]\nseconds = 901": ("limits.seconds", 900),
    "[limits]\ntokens = 200001": ("limits.tokens", 200_000),
    "[limits]\ntools = 61": ("limits.tools", 60),
    "[limits]\nsteps = 17": ("limits.steps", 16),
    '[sandbox]\nplace = "local"': ("sandbox.place", "auto"),
    "[sandbox]\nrequire = true": ("sandbox.require", False),
    '[vm]\nmirror = "http://evil.example"': ("vm.mirror", None),
}


@pytest.mark.parametrize("text", GUARDED)
def test_an_untrusted_project_widens_nothing(home: Home, text: str) -> None:
    path = home.file(text)
    key, default = GUARDED[text]
    settings = home.load()
    assert {entry.key: entry.value for entry in settings.entries()}[key] == default
    assert settings.sources[key] == "default"
    (warning,) = settings.warnings
    assert f"{key} = " in warning
    assert str(path) in warning
    assert f"org trust {home.project}" in warning


@pytest.mark.parametrize("text", GUARDED)
def test_a_trusted_project_does(home: Home, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = home.file(text)
    _trust(home, monkeypatch)
    settings = home.load()
    assert settings.sources[GUARDED[text][0]] == str(path)
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("own", "theirs", "holds"),
    [("off", "run", "off"), ("off", "ask", "off"), ("ask", "run", "ask"), ("ask", "off", "off"),
     ("run", "ask", "ask")],
)  # fmt: skip
def test_a_project_may_narrow_a_tool_but_not_widen_it(home: Home, own: str, theirs: str, holds: str) -> None:
    home.user(f'[tools]\nsh = "{own}"')
    home.file(f'[tools]\nsh = "{theirs}"')
    settings = home.load()
    assert settings.tools.sh == holds
    assert bool(settings.warnings) == (holds != theirs)


def test_limits_are_measured_against_the_persons_own(home: Home) -> None:
    home.user("[limits]\nturns = 5\ntools = 100")
    home.file("[limits]\nturns = 6\ntools = 80\nsteps = 2")
    settings = home.load()
    assert (settings.limits.turns, settings.limits.tools, settings.limits.steps) == (5, 80, 2)
    assert [value.split(" ")[0] for value in settings.refused] == ["limits.turns"]


def test_a_participants_server_elsewhere_needs_trust_too(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.file("""
        [[participant]]
        id = "a"
        base = "http://evil.example"
        [[participant]]
        id = "b"
        base = "localhost:8080"
        system = "Answer in verse."
    """)
    settings = home.load()
    assert settings.participants == (
        Member("a"),
        Member("b", base="http://localhost:8080/v1", system="Answer in verse."),
    )
    (warning,) = settings.warnings
    assert "participant a: base = http://evil.example/v1" in warning
    _trust(home, monkeypatch)
    assert home.load().participants[0].base == "http://evil.example/v1"


def test_a_participant_may_be_on_the_persons_own_server(home: Home) -> None:
    home.user('base = "http://gpu.lan"')
    home.file('[[participant]]\nid = "a"\nbase = "http://gpu.lan/"')
    assert home.load().participants == (Member("a", base="http://gpu.lan/v1"),)


def test_a_flag_over_a_refused_value_leaves_nothing_to_warn_of(home: Home) -> None:
    home.file("[limits]\nturns = 99")
    settings = home.load(flags={"limits.turns": 100})
    assert settings.limits.turns == 100
    assert settings.warnings == ()


def test_a_file_that_changes_is_no_longer_trusted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.file("[limits]\nturns = 99")
    _trust(home, monkeypatch)
    assert home.load().limits.turns == 99
    home.file("[limits]\nturns = 100")
    assert home.load().limits.turns == 30
    assert len(home.load().warnings) == 1


def test_trust_says_what_would_be_started(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.file('[generation]\nstart = "shop --now"')
    _trust(home, monkeypatch)
    assert "allowed: org start runs 'shop --now'" in capsys.readouterr().out


def test_trust_holds_for_one_folder_by_its_real_path(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.file("[limits]\nturns = 99")
    _trust(home, monkeypatch)
    link = home.path / "link"
    link.symlink_to(home.project)
    assert home.load(link).limits.turns == 99
    copy = home.path / "copy"
    copy.mkdir()
    (copy / "org.toml").write_text("[limits]\nturns = 99")
    assert home.load(copy).limits.turns == 30


def test_trust_can_be_taken_back(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.file("[limits]\nturns = 99")
    _trust(home, monkeypatch)
    assert "allowed: limits.turns = 99" in capsys.readouterr().out
    assert trust_verb.run([str(home.project), "--remove"]) == 0
    assert "no longer trusted" in capsys.readouterr().out
    assert home.load().limits.turns == 30
    assert trust_verb.run([str(home.project), "--remove"]) == 0
    assert "was not trusted" in capsys.readouterr().out


def test_a_broken_list_of_trust_is_an_error_not_trust(home: Home) -> None:
    home.file("[limits]\nturns = 99")
    home.state.mkdir(parents=True)
    for text in ["{", "[]", '{"version": 2, "folders": {}}', '{"version": 1, "folders": 3}']:
        (home.state / TRUST_FILE).write_text(text)
        assert TRUST_FILE in home.error().message


def test_the_list_of_trust_is_the_persons_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.file("")
    _trust(home, monkeypatch)
    assert [path.name for path in home.state.iterdir()] == [TRUST_FILE]
    assert (home.state / TRUST_FILE).stat().st_mode & 0o077 == 0


def test_trust_without_a_file_is_an_error(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no org\.toml"):
        _trust(home, monkeypatch)


def test_a_broken_file_cannot_be_trusted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.file("turns = 3")
    with pytest.raises(ConfigError):
        _trust(home, monkeypatch)
    assert not (home.state / TRUST_FILE).exists()


def _trust(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "ORG_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home.path))
    trust_verb.run([str(home.project)])


# -- mistakes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('modle = "x"', ["`modle`", "did you mean `model`"]),
        ("[limits]\nturn = 3", ["`limits.turn`", "did you mean `limits.turns`"]),
        ("turns = 3", ["`turns`", "did you mean `limits.turns`"]),
        ("[limit]\nturns = 3", ["`limit`", "did you mean `limits`"]),
        ("xyzzy = 3", ["`xyzzy`", "known: model"]),
        ("model = 3", ["`model`", "expected text", "not 3"]),
        ("[limits]\nturns = true", ["`limits.turns`", "expected a whole number above 0", "not True"]),
        ("[limits]\nturns = 0", ["`limits.turns`", "above 0"]),
        ('[limits]\nseconds = "1h"', ["`limits.seconds`", "seconds"]),
        ("[limits]\nseconds = nan", ["`limits.seconds`", "seconds"]),
        ("limits = 3", ["`limits`", "expected a table", "[limits]"]),
        ("generation = 3", ["`generation`", "expected a table"]),
        ('policy = "all"', ["`policy`", '"in-turn", "parallel", "mention"', "'all'"]),
        ('[tools]\nsh = "maybe"', ["`tools.sh`", '"off", "ask", "run"']),
        ('[sandbox]\nplace = "cloud"', ["`sandbox.place`", '"auto", "bubblewrap", "local", "vm"']),
        ('base = "ftp://x"', ["`base`", "expected a URL"]),
        ('[vm]\nmirror = "http://ada:pw@x/debian"', ["`vm.mirror`", "`dists/`", "//...@x/debian"]),
        ('name = "Ada L"', ["`name`", "lower-case"]),
        ("participant = 3", ["`participant`", "[[participant]]"]),
        ("[participant]\nid = 'a'", ["`participant`", "[[participant]]"]),
        ("[[participant]]\nmodel = 'a'", ["participant 1", "`id` is missing"]),
        ("[[participant]]\nid = 'group'", ["participant 1", "`id`"]),
        ("[[participant]]\nid = 'a'\nprofil = 'agent'", ["participant 1", "did you mean `profile`"]),
        ("[[participant]]\nid = 'a'\ntemperature = 3", ["`temperature`", "from 0 to 2"]),
        ("[[participant]]\nid = 'a'\n[[participant]]\nid = 'a'", ["two participants"]),
        ('"\\u001b[31m" = 3', ["'\\x1b[31m'"]),
        ("model = \n", ["line 1", "not valid TOML"]),
        ('a = 1\nb = 2\nmodel = "x', ["line 3", "not valid TOML"]),
    ],
)
def test_a_mistake_names_file_key_and_what_was_expected(home: Home, text: str, words: list[str]) -> None:
    path = home.file(text)
    error = home.error()
    shown = f"{error.message} {error.hint}"
    assert shown.startswith(f"{path}: ")
    for word in words:
        assert word in shown
    assert shown.isprintable()


@pytest.mark.parametrize("name", [key.name for key in KEYS])
def test_every_key_refuses_what_is_not_its_kind_and_names_the_nearest(home: Home, name: str) -> None:
    home.user(f"{name} = []")
    error = home.error()
    assert f"`{name}`: expected" in error.message
    home.user(f"{name}x = 1")
    assert f"`{name}`" in home.error().hint


def test_a_mistake_of_the_environment_names_the_variable(home: Home) -> None:
    assert "ORG_SANDBOX" in home.error(ORG_SANDBOX="cloud").message


def test_a_file_that_is_not_text_or_too_large_is_an_error(home: Home) -> None:
    path = home.file("")
    path.write_bytes(b"a = 1\n\xff")
    assert "line 2: not UTF-8" in home.error().message
    path.write_bytes(b"#" * 2_000_000)
    assert "larger" in home.error().message


@given(st.text(max_size=60))
def test_any_text_is_read_or_is_a_config_error(text: str) -> None:
    try:
        values = parse_file(text, "org.toml")
    except ConfigError as error:
        message = error.message
    else:
        message = "org.toml: " + " ".join(values)
    assert message.startswith("org.toml: ")


# -- places


def test_the_project_file_is_the_nearest_up_to_the_checkouts_root(home: Home) -> None:
    outer = home.path / "code" / "org.toml"
    outer.write_text('model = "outer"')
    deep = home.project / "a" / "b"
    deep.mkdir(parents=True)
    assert home.load(deep).model == "outer"
    (home.project / ".git").mkdir()
    assert home.load(deep).model is None
    home.file('model = "inner"')
    assert home.load(deep).model == "inner"


def test_outside_of_home_and_checkout_only_the_folder_itself_counts(home: Home, tmp_path: Path) -> None:
    deep = tmp_path / "shared" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "shared" / "org.toml").write_text('model = "planted"')
    assert home.load(deep).model is None
    assert home.load(tmp_path / "shared").model == "planted"


def test_xdg_folders_are_followed_when_absolute(home: Home, tmp_path: Path) -> None:
    settings = home.load(
        XDG_CONFIG_HOME=str(tmp_path / "c"), XDG_STATE_HOME="relative", XDG_CACHE_HOME=str(tmp_path / "k")
    )
    assert settings.places.config == tmp_path / "c" / "org"
    assert settings.places.state == home.state
    assert settings.places.cache == tmp_path / "k" / "org"


def test_org_config_names_another_user_file(home: Home, tmp_path: Path) -> None:
    home.user('model = "usual"')
    other = tmp_path / "other.toml"
    other.write_text('model = "other"')
    assert home.load(ORG_CONFIG=str(other)).model == "other"
    assert "names no file" in home.error(ORG_CONFIG=str(tmp_path / "none.toml")).message


def test_no_color_is_seen(home: Home) -> None:
    assert home.load().color
    assert home.load(NO_COLOR="").color
    assert not home.load(NO_COLOR="1").color


# -- the verbs


def test_the_starter_is_valid_and_silent(home: Home) -> None:
    home.file(starter_toml())
    assert set(home.load().sources.values()) == {"default"}


def test_the_starter_with_every_line_taken_in_says_what_holds_anyway(home: Home) -> None:
    path = home.file(re.sub(r"(?m)^#(?! )", "", starter_toml()))
    settings = home.load()
    # All but the one that is an example, and that a project's file may not set by itself.
    others = {key: source for key, source in settings.sources.items() if key != "vm.mirror"}
    assert set(others.values()) == {str(path)}
    assert settings.refused == ("vm.mirror = http://mirror.example/debian",)
    assert settings.participants == DEFAULT_ROSTER
    assert settings.limits == home.load(home.path).limits


def test_init_writes_once_and_never_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init_verb.run([str(tmp_path)]) == 0
    assert (tmp_path / "org.toml").read_text() == starter_toml()
    assert str(tmp_path / "org.toml") in capsys.readouterr().out
    (tmp_path / "org.toml").write_text("mine")
    with pytest.raises(UsageError, match="already"):
        init_verb.run([str(tmp_path)])
    assert (tmp_path / "org.toml").read_text() == "mine"
    with pytest.raises(EnvironmentProblem):
        init_verb.run([str(tmp_path / "none")])


def test_config_prints_every_value_with_its_source(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home.file("per_model = 2\n[limits]\nturns = 99")
    _trust(home, monkeypatch)
    home.file("per_model = 2\n[limits]\nturns = 98")
    monkeypatch.setenv("ORG_MODEL", "qwen3:8b")
    capsys.readouterr()
    assert config_verb.run(["-C", str(home.project)]) == 0
    table = capsys.readouterr().out
    assert re.search(rf"^per_model +2 +{re.escape(str(path))}$", table, re.MULTILINE)
    assert re.search(r"^model +qwen3:8b +environment ORG_MODEL$", table, re.MULTILINE)
    assert "warning: " in table
    assert config_verb.run(["-C", str(home.project), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["version"] == 1
    assert document["files"]["project"] == str(path)
    by_key = {entry["key"]: entry for entry in document["settings"]}
    assert by_key["per_model"] == {"key": "per_model", "value": 2, "source": str(path)}
    assert by_key["participant"]["value"][1] == {"id": "calc", "profile": "python"}
    assert len(document["warnings"]) == 1
