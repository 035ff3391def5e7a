"""Reading data never imports a module, builds a class it names, or runs code."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pydantic
import pytest

import allm_actors
from allm_actors import Session
from allm_actors.data import ChatResult, Event, Message, Request, Response, StepResult, Thread, Tool, ToolCall
from allm_actors.errors import AllmError
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, Reply

PACKAGE = Path(allm_actors.__file__).parent

FORBIDDEN_MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "ruamel", "jsonpickle",
    "code", "codeop", "runpy", "xmlrpc", "xml",
}  # fmt: skip
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
IMPORTERS = {"import_module", "spec_from_file_location", "exec_module", "module_from_spec"}

# Where something is imported by name, and who gives the name. None of them is data.
ALLOWED = {
    ("__init__.py", "import_module"),  # the names of this package, listed beside it
    ("providers/_llama_server.py", "import_module"),  # a constant: the optional extra
    ("cli/_talk.py", "import_module"),  # --tools, and a constant (readline)
    ("cli/_talk.py", "spec_from_file_location"),  # --tools
    ("cli/_talk.py", "module_from_spec"),
    ("cli/_talk.py", "exec_module"),
    ("data/_functions.py", "__import__"),  # `pickle` calls it, for a program that pickles its own tools
    ("testing/_conformance_values.py", "pickle"),  # reads back what it has just written itself
}


def called(node):
    """The last name of what a call calls, and whether it is a bare one."""
    if isinstance(node.func, ast.Name):
        return node.func.id, True
    return (node.func.attr, False) if isinstance(node.func, ast.Attribute) else (None, False)


def suspicious(source, where):
    """What in a module could run data as code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [(node.module or "").split(".")[0]]
        else:
            names = []
        yield from ((where, name) for name in names if name in FORBIDDEN_MODULES)
        if isinstance(node, ast.Call):
            name, bare = called(node)
            if (bare and name in FORBIDDEN_CALLS) or name in IMPORTERS:
                yield where, name
            if any(word.arg == "shell" for word in node.keywords) or name in {"system", "popen"}:
                yield where, f"a shell in {name}"


def test_no_module_unpickles_evaluates_or_imports_what_data_names():
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        found |= set(suspicious(path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix()))
    assert found == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import yaml", "eval('1')", "exec(text)",
        "import importlib\nimportlib.import_module(name)", "subprocess.run(x, shell=True)", "os.system(x)",
    ],
)  # fmt: skip
def test_the_search_for_such_code_finds_it(source):
    assert list(suspicious(source, "x.py"))


HOSTILE = [
    {"__class__": "os.system"},
    {"__reduce__": ["os.system", ["true"]]},
    {"py/object": "subprocess.Popen", "py/reduce": [{"py/type": "os.system"}, ["true"]]},
    {"!!python/object/apply:os.system": ["true"]},
    {"__type__": "canary_module.Thing", "module": "canary_module", "handler": "canary_module:run"},
    {"kind": "canary_module.Error", "reason": "x"},
]


def holds_only_data(value):
    """Whether a value is JSON: nothing in it was built from a name."""
    if isinstance(value, dict):
        return all(type(key) is str and holds_only_data(item) for key, item in value.items())
    if isinstance(value, list):
        return all(holds_only_data(item) for item in value)
    return type(value) in (str, int, float, bool, type(None))


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A module that tells when it is imported."""
    (tmp_path / "canary_module.py").write_text(
        "class Thing: pass\nclass Error(Exception): pass\ndef run(*a): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    assert "canary_module" not in sys.modules


FORMS = {
    "session": lambda: json.loads(Session(thread=Thread(messages=[Message(role="user", content="x")])).model_dump_json()),
    "thread": lambda: json.loads(Thread(messages=[Message(role="user", content="x")]).model_dump_json()),
    "message": lambda: json.loads(Message(role="user", content="x").model_dump_json()),
    "request": lambda: json.loads(Request(messages=[Message(role="user", content="x")]).model_dump_json()),
    "tool": lambda: {"name": "t", "description": "d", "schema": {"type": "object"}},
    "call": lambda: {"id": "1", "name": "t", "arguments": {}},
    "response": lambda: json.loads(Response(output_text="x", finish_reason="stop").model_dump_json()),
    "event": lambda: {"type": "text_delta", "id": None, "delta": "x"},
}  # fmt: skip
READERS = {
    "session": Session.model_validate_json, "thread": Thread.model_validate_json,
    "message": Message.model_validate_json, "request": Request.model_validate_json,
    "tool": Tool.model_validate_json, "call": ToolCall.model_validate_json,
    "response": Response.model_validate_json, "event": pydantic.TypeAdapter(Event).validate_json,
}  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda value: next(iter(value)))
@pytest.mark.parametrize("form", FORMS)
def test_stored_json_cannot_name_classes_or_modules(form, hostile, canary):
    """C-36: an unknown member is an error; what a free member holds stays what JSON made of it."""
    good = FORMS[form]()
    read = READERS[form]
    read(json.dumps(good))  # it is a document of that kind, so that what follows is refused for the rest
    with pytest.raises(pydantic.ValidationError):
        read(json.dumps({**good, **hostile}))
    for name in good:
        try:
            value = read(json.dumps({**good, name: hostile}))
        except pydantic.ValidationError:
            continue
        assert holds_only_data(json.loads(value.model_dump_json()))
        held = getattr(value, name)
        assert held == hostile or isinstance(held, pydantic.BaseModel), (name, held)


@pytest.mark.parametrize(
    "kind", ["os.system", "canary_module.Error", "builtins.SystemExit", "AllmError", "", None]
)
def test_a_stored_error_is_one_of_the_librarys_own(kind, canary):
    """C-29: its kind is looked up in a table, never imported."""
    with pytest.raises(pydantic.ValidationError):
        AllmError.from_dict({"kind": kind, "reason": "x", "message": "m"})


@pytest.mark.parametrize("model", [Session, Thread, Request, ChatResult, StepResult])
def test_a_tool_read_from_json_has_no_handler(model):
    """C-18: a handler is never written, so none is ever read."""
    tools = model.model_json_schema().get("$defs", {}).get("Tool", {}).get("properties", {})
    assert "handler" not in tools
    with pytest.raises(pydantic.ValidationError):
        Tool.model_validate_json('{"name":"t","description":"","schema":{},"handler":"os.system"}')


def test_arguments_of_a_model_run_no_code(canary):
    """What a model writes is parsed as JSON alone, whatever it looks like."""
    evil = '__import__("canary_module")'
    reply = Reply(tool_calls=[ToolCall(id="1", name="t", arguments={}, raw_arguments=evil)])
    seen = []

    @allm_actors.tool
    def t(text: str = "") -> str:
        seen.append(text)
        return "done"

    with FakeServer(script=[reply, "bye"]) as server:
        engine = allm_actors.Engine(adapter=OpenAI(base_url=server.base_url), model="m")
        assert allm_actors.chat(engine, "hi", tools=[t]).text == "bye"
    assert seen == []  # refused: it is no JSON object
