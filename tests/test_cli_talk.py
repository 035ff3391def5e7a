"""`allm-actors chat` as a conversation: turns, tools, questions, approvals, a file that keeps it, Ctrl-C."""

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import structlog

from allm_actors import Session, ToolCall
from allm_actors.cli import main
from allm_actors.testing import FakeServer, Reply

ROOT = pathlib.Path(__file__).parent.parent
LIMIT = 30

TOOLS = """
import allm_actors as allm

@allm.tool
def weather(city: str) -> str:
    "Look up the weather."
    return f"sun in {city}"

@allm.tool
def which(what: str):
    "Ask the user."
    return allm.AskUser(f"Which {what}?", choices=["red", "blue"])

@allm.tool(manual=True)
def pay(amount: int):
    "Pay, once a person has approved."

@allm.tool
def leave():
    "End the conversation."
    return allm.Halt("left", "bye")
"""


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["allm-actors", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
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


@pytest.fixture
def tools(tmp_path):
    path = tmp_path / f"tools_{os.getpid()}.py"
    path.write_text(textwrap.dedent(TOOLS))
    return path


def against(server, *arguments):
    return ("chat", "--base-url", server.base_url, "--model", "m", *arguments)


def calls(name, **arguments):
    return Reply(tool_calls=[ToolCall(id=f"call-{name}", name=name, arguments=arguments)])


def saved(path):
    return Session.model_validate_json(path.read_text(encoding="utf-8"))


def test_turn_after_turn(run, server):
    """Each request has the whole conversation; an empty line is nothing."""
    server.add("Hello.", "Fine.")

    code, out, err = run(*against(server, "-i", "--system", "Be brief."), stdin="Hi\n\nHow are you?\n")

    assert (code, out) == (0, "Hello.\nFine.\n")
    assert [m["content"] for m in server.requests[1].json["messages"]] == [
        "Be brief.",
        "Hi",
        "Hello.",
        "How are you?",
    ]
    assert err.count("first token") == 2


def test_a_conversation_is_kept_and_gone_on_with(run, server, tmp_path):
    """With or without a prompt on the command line."""
    file = tmp_path / "trip.json"
    server.add("Hello.", "Fine.", "Bye.")

    run(*against(server, "--session", file, "-i"), stdin="Hi\n")
    assert (saved(file).id, saved(file).status, len(saved(file).thread.messages)) == ("trip", "completed", 2)
    code, out, _ = run(*against(server, "--session", file, "How are you?"))
    run(*against(server, "--session", file, "-i"), stdin="Bye\n")

    assert (code, out) == (0, "Fine.\n")
    assert [m.content for m in saved(file).thread.messages] == [
        "Hi",
        "Hello.",
        "How are you?",
        "Fine.",
        "Bye",
        "Bye.",
    ]
    assert list(tmp_path.iterdir()) == [file]


def test_tools_are_shown_as_they_run(run, server, tools):
    """What they are asked and what they say, on standard error; standard output has the answer alone."""
    server.add(calls("weather", city="Kyoto\x1b[2J"), "Sunny.")

    code, out, err = run(*against(server, "--tools", tools, "Weather?"))

    assert (code, out) == (0, "Sunny.\n")
    assert '· weather {"city":"Kyoto' in err
    assert "  weather: sun in Kyoto" in err
    assert "\x1b[2J" not in err
    assert [t["function"]["name"] for t in server.requests[0].json["tools"]] == [
        "weather",
        "which",
        "pay",
        "leave",
    ]


def test_a_question_is_answered_at_the_prompt(run, server, tools, tmp_path):
    file = tmp_path / "s.json"
    server.add(calls("which", what="colour"), "Red it is.")

    code, out, err = run(*against(server, "-i", "--tools", tools, "--session", file), stdin="Paint it\nred\n")

    assert (code, out) == (0, "Red it is.\n")
    assert "Which colour?" in err
    assert '{"choices":["red","blue"]}' in err
    assert server.requests[1].json["messages"][-1] == {"role": "user", "content": "red"}
    assert saved(file).status == "completed"


def test_a_question_outlives_the_program(run, server, tools, tmp_path):
    file = tmp_path / "s.json"
    server.add(calls("which", what="colour"), "Red it is.")
    _, _, asked = run(*against(server, "--tools", tools, "--session", file, "Paint it"))
    assert saved(file).status == "awaiting_user"
    assert "Which colour?\n" in asked
    assert "the same --session" in asked

    _, out, err = run(*against(server, "-i", "--tools", tools, "--session", file), stdin="red\n")

    assert "Which colour?" in err
    assert out == "Red it is.\n"


def test_a_call_that_waits_for_a_person(run, server, tools, tmp_path):
    """It is shown, its result is typed, and the model goes on; with a prompt it is refused."""
    file = tmp_path / "s.json"
    server.add(calls("pay", amount=5), "Paid.")
    _, _, asked = run(*against(server, "--tools", tools, "--session", file, "Pay"))
    assert saved(file).status == "awaiting_tools"
    assert 'pay {"amount":5}\n' in asked
    assert "the same --session" in asked

    code, _, err = run(*against(server, "--session", file, "Well?"))
    assert (code, "calls wait for an answer (pay)" in err) == (1, True)
    code, out, err = run(*against(server, "-i", "--tools", tools, "--session", file), stdin="approved\n")

    assert (code, out) == (0, "Paid.\n")
    assert 'pay {"amount":5}' in err
    assert server.requests[-1].json["messages"][-1]["content"] == "approved"


def test_an_approval_that_is_not_given_leaves_the_call_pending(run, server, tools, tmp_path):
    file = tmp_path / "s.json"
    server.add(calls("pay", amount=5))

    code, _, _ = run(*against(server, "-i", "--tools", tools, "--session", file), stdin="Pay\n")

    assert code == 0
    assert saved(file).status == "awaiting_tools"


def test_a_failing_turn_does_not_end_the_conversation(run, server, tmp_path):
    """It is one line, and the session can go on."""
    file = tmp_path / "s.json"
    server.add(Reply(status=400, json={"error": {"message": "too hot"}}), "Better.")

    code, out, err = run(*against(server, "-i", "--session", file), stdin="Hi\nAgain\n")

    assert (code, out) == (0, "Better.\n")
    assert "allm-actors: too hot" in err or "too hot" in err
    assert saved(file).status == "completed"


def test_a_failing_turn_with_a_prompt_is_code_1(run, server, tmp_path):
    server.add(Reply(status=400, json={"error": {"message": "too hot"}}))

    code, _, err = run(*against(server, "--session", tmp_path / "s.json", "Hi"))

    assert code == 1
    assert "too hot" in err
    assert saved(tmp_path / "s.json").status == "idle"


def test_a_halting_tool_is_shown(run, server, tools):
    server.add(calls("leave"))

    _, _, err = run(*against(server, "--tools", tools, "Leave"))

    assert "  leave: bye (halted: left)" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tools", "json", "Hi"), "json defines no tool"),
        (("--tools", "nowhere_at_all", "Hi"), "nowhere_at_all"),
        (("--session", "{broken}", "Hi"), "Invalid JSON"),
        (("--session", "{torn}", "Hi"), "pending tool calls: required for status"),
        (("--session", "{torn}", "-i"), "pending tool calls: required for status"),
        (("--session", "{nowhere}", "Hi"), "cannot be written"),
    ],
)
def test_what_is_wrong_is_named(run, server, tmp_path, arguments, said):
    files = {name: tmp_path / f"{name}.json" for name in ("broken", "torn")}
    files["broken"].write_text("{")
    files["torn"].write_text('{"status":"awaiting_tools"}')
    files["nowhere"] = tmp_path / "no" / "such" / "s.json"
    named = [files[a.strip("{}")] if a.startswith("{") else a for a in arguments]

    code, _, err = run(*against(server, *named))

    assert code == 1
    assert said in err
    assert err.count("\n") == 1
    assert not server.requests  # nothing was asked whose answer could not be kept


def test_a_session_behind_a_link_keeps_its_place_and_its_mode(run, server, tmp_path):
    """The file is replaced, not the link to it; who may read it is for its owner to say."""
    file, link = tmp_path / "kept" / "s.json", tmp_path / "link.json"
    file.parent.mkdir()
    file.write_text(Session(id="x").model_dump_json())
    file.chmod(0o640)
    link.symlink_to(file)
    server.add("Hello.")

    run(*against(server, "--session", link, "Hi"))

    assert link.is_symlink()
    assert (saved(file).id, saved(file).status) == ("x", "completed")
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_new_session_is_its_owners_alone(run, server, tmp_path):
    server.add("Hello.")

    run(*against(server, "--session", tmp_path / "s.json", "Hi"))

    assert (tmp_path / "s.json").stat().st_mode & 0o077 == 0


def test_a_conversation_takes_no_prompt(run, server):
    code, _, err = run(*against(server, "-i", "Hi"))

    assert code == 2
    assert "--interactive" in err


def talking(server, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    return subprocess.Popen(
        [
            sys.executable,
            "-u",
            "-W",
            "error",
            "-m",
            "allm_actors",
            *map(str, against(server, "-i", *arguments)),
        ],
        env={**environment, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        bufsize=1,
    )


def test_ctrl_c_halts_the_turn_and_keeps_the_session(server, tmp_path):
    """The server sees the connection end; the next line is a new turn of the same conversation."""
    file = tmp_path / "s.json"
    server.add("First.", Reply("One two three", fault="stall", after=2), "Third.")
    with talking(server, "--session", file) as process:
        process.stdin.write("Hi\n")
        assert process.stdout.readline() == "First.\n"
        process.stdin.write("Count\n")
        assert process.stdout.read(3) == "One"

        process.send_signal(signal.SIGINT)

        process.stdin.write("And now?\n")
        process.stdin.close()
        out, err = process.stdout.read(), process.stderr.read()
        assert process.wait(LIMIT) == 0
    assert "halted\n" in err
    assert "Traceback" not in err
    assert out.endswith("Third.\n")
    sent = [m["content"] for m in server.requests[-1].json["messages"]]
    assert sent == ["Hi", "First.", "And now?"]  # the turn that was halted never happened
    assert [m.content for m in saved(file).thread.messages] == [*sent, "Third."]


def test_ctrl_c_at_the_prompt_ends_it(server, tmp_path):
    file = tmp_path / "s.json"
    server.add("First.")
    with talking(server, "--session", file) as process:
        process.stdin.write("Hi\n")
        assert process.stdout.readline() == "First.\n"
        limit = time.monotonic() + LIMIT
        while not file.exists():  # written once the turn is over
            assert time.monotonic() < limit
            time.sleep(0.005)

        process.send_signal(signal.SIGINT)

        assert process.wait(LIMIT) == 130
        assert "Traceback" not in process.stderr.read()
        process.stdin.close()


def test_every_event_of_a_conversation_can_be_shown(run, server, tools):
    server.add(calls("weather", city="Kyoto"), "Sunny.")

    _, out, _ = run(*against(server, "--show-events", "--tools", tools, "Weather?"))

    kinds = [line.split()[2] for line in out.splitlines()]
    assert kinds[-1] == "chat_completed"
    assert {"tool_execution_started", "tool_result_encoded", "step_completed"} <= set(kinds)
    assert json.loads(out.splitlines()[-1].split(maxsplit=3)[3])["result"]["halted_reason"] == "completed"


def test_tools_that_cannot_be_imported_say_why_and_are_no_bug_of_ours(run, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0\n")

    for given, said in [
        (str(broken), f"the tools of {broken} cannot be had: ZeroDivisionError: division by zero"),
        ("no_such_module_", "No module named 'no_such_module_'; the name of a file ends in .py"),
        (str(tmp_path / "none.py"), "No such file or directory"),
    ]:
        code, _, err = run("chat", "--provider", "fake", "--tools", given, "Hi")

        assert code == 1
        assert said in err
        assert "bug" not in err


def test_a_file_that_holds_no_session_is_named(run, tmp_path):
    file = tmp_path / "talk.json"
    file.write_text("{")

    code, _, err = run("chat", "--provider", "fake", "--session", str(file), "Hi")

    assert code == 1
    assert f"{file} holds no session that can go on" in err
    assert file.read_text() == "{"
