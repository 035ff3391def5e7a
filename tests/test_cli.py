"""`allm-actors chat` as a person or a script meets it: a process, its output and its exit code."""

import io
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
import structlog

from allm_actors.cli import main
from allm_actors.testing import FakeServer, Reply

ROOT = pathlib.Path(__file__).parent.parent
LIMIT = 30


def environment(**more):
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return {**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", **more}


def start(*arguments, **more):
    more.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "allm_actors", *arguments],
        env=environment(**more.pop("env", {})),
        stdout=more.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        encoding="utf-8",
        **more,
    )


def run_process(*arguments, **more):
    with start(*arguments, **more) as process:
        out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process, which spares half a second of imports."""
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)

    def call(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["allm-actors", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin or ""))
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    yield call
    structlog.reset_defaults()


@pytest.fixture
def server():
    with FakeServer() as fake:
        yield fake


def against(server, *arguments):
    return ("chat", "--base-url", server.base_url, "--model", "m", *arguments)


def test_an_answer_goes_to_standard_output_and_its_speed_to_standard_error(server):
    server.add(Reply("Links tell you.", usage={"input_tokens": 3, "output_tokens": 4}))

    code, out, err = run_process(*against(server, "Explain links."))

    assert (code, out) == (0, "Links tell you.\n")
    assert re.fullmatch(r"first token after \d+\.\d\d s · 4 tokens · \d+\.\d tokens/s\n", err)
    assert server.requests[0].json["messages"] == [{"role": "user", "content": "Explain links."}]


def test_the_prompt_may_come_from_standard_input(run, server):
    server.add("Fine.")

    code, out, _ = run(*against(server), stdin="How are\nyou?\n")

    assert (code, out) == (0, "Fine.\n")
    assert server.requests[0].json["messages"][0]["content"] == "How are\nyou?\n"


def test_an_argument_wins_over_standard_input_which_is_left_alone(server):
    """In a pipeline of somebody else's, standard input may never end."""
    server.add("Fine.")
    with start(*against(server, "Well?"), stdin=subprocess.PIPE) as process:
        assert process.wait(LIMIT) == 0
        assert process.stdout.read() == "Fine.\n"
        process.stdin.close()


def test_options_reach_the_request(run, server):
    server.add("Yes.")

    run(*against(server, "--system", "Be brief.", "--temperature", "0", "--max-tokens", "5", "Well?"))

    body = server.requests[0].json
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 5)


def test_every_event_can_be_shown(run, server):
    server.add(Reply("One two", finish_reason="length"))

    code, out, err = run(*against(server, "--show-events", "Count."))

    assert code == 0
    kinds = [line.split()[2] for line in out.splitlines()]
    assert kinds[0] == "message_started"
    assert kinds[-1] == "message_completed"
    assert {"text_delta", "text_completed", "raw_chunk"} <= set(kinds)
    assert '"delta":"One"' in out
    assert err.rstrip().endswith("ended by length")


def test_a_provider_cannot_drive_the_terminal(run, server):
    server.add(
        Reply(chunks=["\x1b]0;owned\x07", "\x9b2Jhi"]),
        Reply(status=400, json={"error": {"message": "\x1b[2J"}}),
    )

    _, out, _ = run(*against(server, "Hello."))
    code, _, err = run(*against(server, "Hello."))

    assert out == "␛]0;owned␇\ufffd2Jhi\n"
    assert code == 1
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=401, json={"error": {"message": "no\nsuch key"}}), "no such key"),
        (Reply(frames=["{not json"]), "is not a JSON object"),
        (Reply(status=404, json={"error": {"message": "model 'm' not found"}}), "model 'm' not found"),
    ],
)
def test_a_failure_is_one_line_and_code_1(run, server, reply, said):
    server.add(reply)

    code, out, err = run(*against(server, "Hello."))

    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("allm-actors: ")
    assert said in err
    assert "Traceback" not in err


def test_a_failure_in_mid_answer_keeps_what_was_said(run, server):
    server.add(Reply("So far so good", fault="drop", after=3))

    code, out, err = run(*against(server, "Hello."))

    assert code == 1
    assert out.startswith("So")
    assert out.endswith("\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--provider", "openai", "Hi"), "--model"),
        (("--provider", "anthropic", "Hi"), "--model"),
        (("--provider", "openai", "--model", "gpt-4o-mini", "Hi"), "set OPENAI_API_KEY (or"),
        (
            ("--provider", "anthropic", "--model", "c", "Hi"),
            "no API key for anthropic: set ANTHROPIC_API_KEY (or",
        ),
        (("--provider", "gemini", "--model", "g", "Hi"), "set GEMINI_API_KEY or GOOGLE_API_KEY (or"),
        (("--base-url", "http://127.0.0.1:9/v1", "--model", "m", ""), "prompt is empty"),
        (("--provider", "fake", "--temperature", "9", "Hi"), "invalid request: temperature: out of range"),
        (("--provider", "fake", "half \udcff"), "half of a surrogate pair at index 5"),
        (("--base-url", "ftp://127.0.0.1/v1", "--model", "m", "Hi"), "base_url"),
        (("--provider", "local", "--model", "/nonexistent/model.gguf", "Hi"), "/nonexistent/model.gguf"),
    ],
)
def test_what_is_missing_is_named_with_the_way_out(run, arguments, said):
    code, out, err = run("chat", *arguments)

    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert said in err


def test_a_server_that_is_not_there_is_named(run):
    with FakeServer() as gone:
        address = gone.base_url

    code, _, err = run("chat", "--base-url", address, "--model", "m", "Hi")

    assert code == 1
    assert err.count("\n") == 1
    assert f"does a server listen at {address}?" in err


@pytest.mark.parametrize(
    "arguments", [("chat", "--provider", "nobody"), ("talk",), ("chat", "--temprature", "1")]
)
def test_a_wrong_option_is_code_2(run, arguments):
    code, _, err = run(*arguments)

    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("openai", "/v1/chat/completions"),
        ("anthropic", "/v1/messages"),
        ("gemini", "/v1/models/m:streamGenerateContent"),
    ],
)
def test_every_provider_can_be_asked(run, server, monkeypatch, provider, path):
    monkeypatch.setenv(f"{provider.upper()}_API_KEY", "a-key-of-ones-own")
    server.add("Fine.")

    code, out, _ = run(*against(server, "--provider", provider, "How are you?"))

    assert (code, out) == (0, "Fine.\n")
    assert server.requests[0].path.partition("?")[0] == path
    assert "a-key-of-ones-own" in repr(server.requests[0].headers)


@pytest.mark.parametrize("provider", ["local", "fake"])
def test_a_base_url_belongs_to_providers_elsewhere(run, provider):
    code, _, err = run("chat", "--provider", provider, "--base-url", "http://127.0.0.1:9/v1", "Hi")

    assert code == 2
    assert "--provider openai" in err


def test_ctrl_c_halts_the_model_and_is_code_130(server):
    """The server sees the connection end; the words so far stay on the screen."""
    server.add(Reply("One two three", fault="stall", after=2))
    with start(*against(server, "Count.")) as process:
        assert process.stdout.read(3) == "One"

        process.send_signal(signal.SIGINT)

        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert err == "halted\n"
    assert "Traceback" not in out + err
    server.wait_for_connections(0)


def test_ctrl_c_before_the_first_word_is_code_130_too(server):
    server.add(Reply("never", delay=60))
    with start(*against(server, "Hello.")) as process:
        server.wait_for_requests(1, timeout=LIMIT)

        process.send_signal(signal.SIGINT)

        _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (130, "halted\n")
    server.wait_for_connections(0)


def test_a_reader_that_goes_away_ends_it_quietly(server):
    server.add(Reply("word " * 200, chunk_delay=0.01))
    with start(*against(server, "Talk.")) as process:
        process.stdout.read(4)

        process.stdout.close()

        assert process.wait(LIMIT) == 141
        assert process.stderr.read() == ""
    server.wait_for_connections(0)


def test_closed_standard_streams_are_an_error_not_a_traceback(server):
    """As a service manager may start it."""
    code, _, err = run_process(*against(server), preexec_fn=lambda: os.close(0))

    assert code == 1
    assert "no prompt" in err or "prompt is empty" in err


def test_without_a_standard_output_it_says_so(server):
    server.add("Never seen.")
    code, _, err = run_process(*against(server, "Hi"), preexec_fn=lambda: os.close(1))

    assert (code, err) == (1, "allm-actors: standard output is closed\n")


def test_without_the_extra_it_says_what_to_install():
    source = (
        "import sys; sys.modules['typer'] = None; sys.argv = ['allm-actors', 'chat', 'hi'];"
        "from allm_actors.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", source],
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == "allm-actors: the command line needs an extra: pip install 'allm-actors[cli]'\n"


def test_the_scripted_provider_needs_nothing(run):
    code, out, err = run("chat", "--provider", "fake", "Are you there?")

    assert code == 0
    assert "no model was asked" in out
    assert "tokens/s" in err


def test_a_failure_says_of_which_request_it_is_and_what_to_look_at(run, server):
    server.add(Reply(status=401), Reply(status=404, json={"error": {"message": "no such model"}}))
    host = server.base_url.removeprefix("http://").removesuffix("/v1")

    _, _, refused = run(*against(server, "Hi"))
    _, _, missing = run(*against(server, "Hi"))

    where = rf"request \S+ to openai at {re.escape(host)}, model 'm'"
    assert re.search(rf"Unauthorized \(check the key in OPENAI_API_KEY; {where}\)$", refused.strip())
    assert re.search(rf"no such model \(check --model and --base-url, .*; {where}\)$", missing.strip())


def test_the_wait_before_the_first_event_counts_for_the_first_token(run, server):
    server.add(Reply("Links tell you.", delay=0.2))

    _, _, err = run(*against(server, "Hi"))

    assert float(re.search(r"first token after (\d+\.\d\d) s", err)[1]) >= 0.2


@pytest.mark.parametrize(
    ("words", "at", "offered"),
    [
        ("allm-actors chat --provider f", 3, "fake"),
        ("allm-actors chat --provider = f", 4, "fake"),  # --provider=f
        ("allm-actors chat --provider = fake --mo", 5, "--model"),
    ],
)
def test_bash_completes_the_value_of_an_option_with_and_without_the_equals_sign(words, at, offered):
    """Bash breaks words at `=`, and hands it over as a word of its own."""
    asked = {"_ALLM_ACTORS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    code, out, err = run_process(env=asked)
    assert (code, out.split(), err) == (0, [offered], "")


def test_bash_completes_every_provider_after_the_equals_sign():
    """The cursor stands on the `=` itself."""
    words = "allm-actors chat --provider ="
    asked = {"_ALLM_ACTORS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "3"}
    _, out, _ = run_process(env=asked)
    assert sorted(out.split()) == ["anthropic", "fake", "gemini", "local", "openai"]
