"""Where keys come from."""

import os
import threading

import pytest
from pydantic import SecretStr

from allm_actors import keys
from allm_actors.engine import keys as store
from allm_actors.errors import EngineError

VARIABLES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "MY_TAG_API_KEY")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    fresh = store._Store()
    monkeypatch.setattr(store, "_store", fresh)
    return fresh


def found(provider="openai", api_key=None):
    hit = keys.get(provider, api_key)
    return hit and (hit.key.get_secret_value(), hit.source)


def fill_all_levels(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("OPENAI_API_KEY=from-file")
    monkeypatch.setenv("OPENAI_API_KEY", "from-env")
    keys.configure(keys={"openai": "from-config"}, load_dotenv=True)
    keys.put("openai", "from-runtime")


def test_the_first_level_that_has_a_key_wins(monkeypatch, tmp_path):  # P-131
    fill_all_levels(monkeypatch, tmp_path)
    assert found(api_key="from-call") == ("from-call", "call")
    assert found() == ("from-runtime", "runtime")
    keys.delete("openai")
    assert found() == ("from-config", "config")
    keys.configure(keys={})
    assert found() == ("from-env", "env")
    monkeypatch.delenv("OPENAI_API_KEY")
    assert found() == ("from-file", "dotenv")
    keys.configure(load_dotenv=False)
    assert found() is None


@pytest.mark.parametrize("blank", ["", "   ", "\n\t"])
def test_blank_values_fall_through_at_every_level(monkeypatch, tmp_path, blank):  # P-131
    fill_all_levels(monkeypatch, tmp_path)
    assert found(api_key=blank) == ("from-runtime", "runtime")
    keys.put("openai", SecretStr(blank))
    assert found() == ("from-config", "config")
    keys.configure(keys={"openai": blank})
    assert found() == ("from-env", "env")
    monkeypatch.setenv("OPENAI_API_KEY", blank)
    assert found() == ("from-file", "dotenv")


def test_surrounding_whitespace_is_removed(monkeypatch):  # P-131
    assert found(api_key=" k\n") == ("k", "call")
    monkeypatch.setenv("OPENAI_API_KEY", "\tk ")
    assert found() == ("k", "env")


def test_the_environment_is_read_at_each_look_up(monkeypatch):  # P-131
    assert found() is None
    monkeypatch.setenv("OPENAI_API_KEY", "now")
    assert found() == ("now", "env")


@pytest.mark.parametrize("load", [False, True])
def test_nothing_found_says_where_it_was_looked_for(load):  # P-131, P-133
    keys.configure(load_dotenv=load)
    with pytest.raises(EngineError) as caught:
        keys.fetch("openai")
    levels = ["call", "runtime", "config", "env"] + ["dotenv"] * load
    assert caught.value.reason == "missing_key"
    assert caught.value.provider == "openai"
    assert caught.value.metadata == {"checked_sources": levels}
    assert "OPENAI_API_KEY" in str(caught.value)
    assert store.checked_sources() == levels


@pytest.mark.parametrize(
    ("provider", "variables"),
    [
        ("openai", ("OPENAI_API_KEY",)),
        ("anthropic", ("ANTHROPIC_API_KEY",)),
        ("gemini", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
        ("google", ("GOOGLE_API_KEY",)),
        ("my-tag", ("MY_TAG_API_KEY",)),
        ("fake", ("FAKE_API_KEY",)),
    ],
)
def test_each_provider_has_its_variables(monkeypatch, provider, variables):  # P-132
    assert keys.env_vars_for(provider) == variables
    for name in reversed(variables):
        monkeypatch.setenv(name, f"of {name}")
        assert found(provider) == (f"of {name}", "env")


def test_keys_are_taken_as_text_or_secret_and_held_as_secret():  # P-133
    keys.put("a", "one")
    keys.put("b", SecretStr("two"))
    keys.configure(keys={"c": "three", "d": SecretStr("four")})
    for provider, value in zip("abcd", ("one", "two", "three", "four"), strict=True):
        secret = keys.fetch(provider)
        assert isinstance(secret, SecretStr)
        assert secret.get_secret_value() == value
    assert keys.fetch("a", SecretStr("given")).get_secret_value() == "given"
    hit = keys.get("a")
    assert isinstance(hit, keys.KeyHit)
    assert "one" not in repr(hit)


@pytest.mark.parametrize("wrong", [b"CANARY", 3, ["CANARY"]])
def test_a_key_of_another_type_is_a_type_error_that_shows_the_type_only(wrong):  # P-135
    for use in (
        lambda: keys.put("openai", wrong),
        lambda: keys.configure(keys={"openai": wrong}),
        lambda: keys.get("openai", wrong),
        lambda: keys.fetch("openai", wrong),
    ):
        with pytest.raises(TypeError, match=type(wrong).__name__) as caught:
            use()
        assert "CANARY" not in str(caught.value)


def test_a_provider_tag_is_text():  # P-133
    with pytest.raises(TypeError, match="int"):
        keys.get(3)


def test_clear_empties_the_run_time_store_and_forgets_the_file(tmp_path):  # P-133
    file = tmp_path / ".env"
    file.write_text("OPENAI_API_KEY=old")
    keys.configure(keys={"anthropic": "stays"}, load_dotenv=True)
    keys.put("gemini", "goes")
    assert found() == ("old", "dotenv")
    file.write_text("OPENAI_API_KEY=new")
    assert found() == ("old", "dotenv"), "the file is read once"

    keys.clear()

    assert found("gemini") is None
    assert found("anthropic") == ("stays", "config")
    assert found() == ("new", "dotenv")
    keys.delete("never there")


def test_the_store_may_be_used_from_many_threads():  # P-133
    def work(n):
        for i in range(200):
            keys.put(f"p{n}", f"{i}")
            assert keys.get(f"p{n}").key.get_secret_value() == f"{i}"
            keys.delete(f"p{n}")

    failures = []

    def guarded(n):
        try:
            work(n)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert failures == []


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("OPENAI_API_KEY=plain", "plain"),
        ("  OPENAI_API_KEY=indented", "indented"),
        ("export OPENAI_API_KEY=exported", "exported"),
        ('OPENAI_API_KEY="quoted"', "quoted"),
        ('OPENAI_API_KEY=""inner""', '"inner"'),
        ('OPENAI_API_KEY="open', '"open'),
        ("OPENAI_API_KEY='single'", "'single'"),
        ("OPENAI_API_KEY=a=b", "a=b"),
        ("OPENAI_API_KEY=a # b", "a # b"),
        (r"OPENAI_API_KEY=a\nb\\'c\'", r"a\nb\\'c\'"),
        ("OPENAI_API_KEY=${HOME}$HOME", "${HOME}$HOME"),
        ("OPENAI_API_KEY=\u00e9", "\u00e9"),
        ("OPENAI_API_KEY=one\nOPENAI_API_KEY=two", "two"),
        ("OPENAI_API_KEY=one\r\nOTHER=two\r\n", "one"),
        ('OPENAI_API_KEY="one\ntwo"', '"one'),
        ("# OPENAI_API_KEY=comment", None),
        ("OPENAI_API_KEY", None),
        ("OPENAI_API_KEY=", None),
        ("=value", None),
        ("1OPENAI_API_KEY=x", None),
        ("NOT A LINE\n\n!!!\nOPENAI_API_KEY=after", "after"),
        ("\ufeffOPENAI_API_KEY=bom", "bom"),
    ],
)
def test_the_file_is_read_as_the_plain_subset(tmp_path, line, value):  # P-134
    (tmp_path / ".env").write_bytes(line.encode())
    keys.configure(load_dotenv=True)
    assert found() == (value and (value, "dotenv"))


def test_the_file_may_be_elsewhere(tmp_path):  # P-134
    path = tmp_path / "sub" / "keys.env"
    path.parent.mkdir()
    path.write_text("OPENAI_API_KEY=elsewhere")
    keys.configure(load_dotenv=True)
    assert found() is None
    keys.configure(dotenv_path=path)
    assert found() == ("elsewhere", "dotenv")


def test_a_file_that_cannot_be_read_is_the_callers_problem(tmp_path):  # P-134
    keys.configure(load_dotenv=True, dotenv_path=tmp_path)  # a directory
    with pytest.raises(OSError, match=r".*"):
        keys.get("openai")
    assert found(api_key="given") == ("given", "call"), "not needed, not read"


def test_a_missing_file_is_empty(tmp_path):  # P-134
    keys.configure(load_dotenv=True, dotenv_path=os.fspath(tmp_path / "none"))
    assert found() is None


def test_the_file_is_not_looked_at_unless_asked_to(tmp_path):  # P-131, P-134
    (tmp_path / ".env").write_text("OPENAI_API_KEY=x")
    assert found() is None
