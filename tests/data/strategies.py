"""Hypothesis strategies for the data models and events."""

import math

from hypothesis import strategies as st

from allm_actors.data import (
    AskUserRequested,
    Base64Source,
    BinarySource,
    ChatCompleted,
    ChatResult,
    ErrorEvent,
    FileSource,
    Image,
    ImagePart,
    Message,
    MessageCompleted,
    MessageStarted,
    ModelRef,
    OtherHalt,
    PromptCache,
    RawChunk,
    Request,
    Response,
    StepCompleted,
    StepResult,
    TextCompleted,
    TextDelta,
    TextPart,
    Thread,
    Tool,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionCompleted,
    ToolExecutionStarted,
    ToolHalt,
    ToolResultEncoded,
    UrlSource,
    Usage,
)
from allm_actors.errors import AdapterError, EngineError, StreamError, ToolError, ValidationError

texts = st.text(max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
json_dicts = st.dictionaries(texts, json_values, max_size=2)
ids = st.sampled_from(["1", "2", "3"])


def optional(strategy):
    return st.none() | strategy


counts = optional(st.integers(min_value=0, max_value=10**9))
costs = optional(st.floats(allow_nan=False) | st.just(math.inf))
errors = st.one_of(
    st.builds(
        AdapterError,
        st.sampled_from(AdapterError.legal_reasons()),
        texts,
        provider=optional(texts),
        status=optional(st.integers()),
        retry_after=optional(st.floats(min_value=0)),
        cause=json_values,
        metadata=json_dicts,
    ),
    st.builds(EngineError, st.sampled_from(EngineError.legal_reasons()), provider=optional(texts)),
    st.builds(StreamError, st.sampled_from(StreamError.legal_reasons()), event_index=optional(st.integers())),
    st.builds(
        ValidationError,
        st.sampled_from(ValidationError.legal_reasons()),
        st.lists(st.tuples(st.lists(texts | st.integers(), max_size=2).map(tuple), texts), max_size=2),
    ),
)
tool_errors = st.builds(
    ToolError, st.sampled_from(ToolError.legal_reasons()), texts, tool_name=optional(texts)
)
usages = st.builds(
    Usage, input_tokens=counts, output_tokens=counts, total_tokens=counts, input_cost=costs, extra=json_dicts
)
sources = st.one_of(
    st.builds(BinarySource, value=st.binary(max_size=8)),
    st.builds(Base64Source, value=texts),
    st.builds(UrlSource, value=texts),
    st.builds(FileSource, value=texts),
)
images = st.builds(
    Image, source=sources, mime_type=optional(texts), width=optional(st.integers()), metadata=json_dicts
)
parts = st.builds(TextPart, text=texts, metadata=json_dicts) | st.builds(
    ImagePart, image=images, detail=st.sampled_from(["auto", "low", "high"])
)
tool_calls = st.builds(
    ToolCall,
    id=ids,
    name=texts,
    arguments=json_dicts,
    raw_arguments=optional(texts),
    provider_data=json_dicts,
)
call_lists = st.lists(tool_calls, max_size=2)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=texts | st.lists(parts, max_size=2),
    name=optional(texts),
    tool_call_id=optional(texts),
    tool_calls=call_lists,
    ask_user_for=optional(texts),
    provider_data=json_dicts,
    metadata=json_dicts,
)
tools = st.builds(
    Tool, name=texts, description=texts, schema=json_dicts, manual=st.booleans(), summary=optional(texts)
)
threads = st.builds(Thread, messages=st.lists(messages, max_size=2), metadata=json_dicts)
models = optional(texts | st.builds(ModelRef, provider=texts, id=texts, pricing=json_dicts))
requests = st.builds(
    Request,
    messages=st.lists(messages, max_size=2),
    model=models,
    tools=st.lists(tools, max_size=2),
    tool_choice=optional(texts | json_dicts),
    temperature=optional(st.floats(allow_nan=False)),
    max_tokens=optional(st.integers()),
    response_format=optional(texts | json_dicts),
    structured_finalize=st.booleans(),
    prompt_cache=optional(st.builds(PromptCache, key=optional(texts))),
    options=json_dicts,
)
finish_reasons = optional(
    st.sampled_from(["stop", "length", "tool_calls", "content_filter", "error", "other"])
)
responses = st.builds(
    Response,
    id=optional(texts),
    message=optional(messages),
    output_text=optional(texts),
    tool_calls=call_lists,
    finish_reason=finish_reasons,
    usage=usages,
    error=optional(errors),
    raw=json_values,
)
other_halts = st.lists(st.builds(OtherHalt, tool_call_id=ids, halted_reason=texts), max_size=2)
halt_fields = {
    "halted_reason": optional(texts),
    "error": optional(errors | tool_errors),
    "pending_question": optional(texts),
    "ask_user_options": json_dicts,
    "manual_tool_calls": call_lists,
    "halt_result": json_values,
    "other_halts": other_halts,
}
step_results = st.builds(
    StepResult,
    thread=optional(threads),
    response=optional(responses),
    tool_results=st.lists(messages, max_size=1),
    done=st.booleans(),
    mode=st.sampled_from(["auto", "manual"]),
    **halt_fields,
)
chat_results = st.builds(
    ChatResult,
    thread=optional(threads),
    final_response=optional(responses),
    steps=st.lists(step_results, max_size=1),
    pass_1_halted_reason=optional(texts),
    **halt_fields,
)

pieces = st.sampled_from(["", "a", "b", '{"a":', "1}", "é"])
text_deltas = st.builds(TextDelta, id=optional(ids), delta=pieces)
tool_call_deltas = st.builds(ToolCallDelta, id=ids, arguments_delta=pieces)
message_completions = st.builds(
    MessageCompleted,
    message=messages,
    finish_reason=finish_reasons,
    raw_finish_reason=optional(texts),
    response_id=optional(texts),
    model=optional(texts),
    usage=optional(usages),
    reasoning=optional(texts),
    refusal=optional(texts),
    provider_data=json_dicts,
)
raw_chunks = st.builds(RawChunk, kind=st.just("usage"), payload=usages) | st.builds(
    RawChunk, kind=st.sampled_from(["provider", "thinking_delta"]), payload=json_values
)
step_completions = st.builds(
    StepCompleted,
    response=responses,
    thread=threads,
    mode=st.sampled_from(["auto", "manual"]),
    manual_tool_calls=call_lists,
)
events = st.one_of(
    st.builds(MessageStarted, message=messages),
    text_deltas,
    st.builds(TextCompleted, id=optional(ids), text=texts),
    st.builds(ToolCallStarted, id=ids, name=st.sampled_from(["", "f", "g"])),
    tool_call_deltas,
    st.builds(
        ToolCallCompleted,
        id=ids,
        name=texts,
        arguments=json_dicts,
        raw_arguments=texts,
        provider_data=json_dicts,
    ),
    message_completions,
    raw_chunks,
    st.builds(ErrorEvent, error=errors),
    st.builds(ToolExecutionStarted, id=ids, name=texts, arguments=json_dicts),
    st.builds(ToolExecutionCompleted, id=ids, name=texts, result=json_values),
    st.builds(ToolResultEncoded, id=ids, content=texts),
    st.builds(AskUserRequested, tool_call_id=ids, tool_name=texts, question=texts, options=json_dicts),
    st.builds(
        ToolHalt,
        tool_call_id=ids,
        reason=texts,
        result=json_values,
        content=optional(texts),
        error=optional(tool_errors),
    ),
    step_completions,
    st.builds(ChatCompleted, result=chat_results),
)
