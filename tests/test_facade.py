"""The names a user imports, and what importing them costs."""

import importlib
import subprocess
import sys
import types

import allm_actors as allm


def test_every_name_is_there_and_comes_from_below():
    """The facade holds no logic of its own."""
    for name in allm.__all__:
        value = getattr(allm, name)
        home = getattr(value, "__module__", None)
        assert home is None or home.startswith("allm_actors.") or isinstance(value, str), name
    assert set(allm.__all__) <= set(dir(allm))


def test_the_public_names_of_steps_chats_streams_and_engines_are_all_here():
    """Every public name is re-exported, the events and errors aside."""
    for home in ("streaming", "chat"):
        public = set(importlib.import_module(f"allm_actors.{home}").__all__)
        assert public <= set(allm.__all__), public - set(allm.__all__)
    assert {"Engine", "EngineRef", "Retry", "start_engine", "Adapter", "Connection"} <= set(allm.__all__)
    assert not set(importlib.import_module("allm_actors.events").__all__) & set(allm.__all__)


def test_chat_is_a_function_whoever_imports_the_folder_of_that_name():
    """A package and a function share the name; users mean the function."""
    importlib.import_module("allm_actors.chat")

    assert isinstance(allm.chat, types.FunctionType)


def test_a_name_that_is_not_there_is_an_attribute_error():
    """With the name."""
    assert not hasattr(allm, "nothing")


def test_importing_the_package_imports_nothing_of_what_it_may_not_need():
    """The process layer alone is quick to import."""
    code = (
        "import sys, allm_actors, allm_actors.beam; "
        "print([name for name in ('pydantic', 'requests', 'tenacity') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)

    assert run.stdout.strip() == "[]"


def test_streaming_over_the_fake_needs_no_http_library():
    """Providers are imported when they are asked for."""
    code = (
        "import sys, allm_actors as allm; allm.stream_generate; allm.Engine; allm.chat; "
        "print('requests' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)

    assert run.stdout.strip() == "False"
