"""A whole answer told as a stream."""

from allm_actors.data import (
    Event,
    Message,
    MessageCompleted,
    MessageStarted,
    RawChunk,
    Response,
    TextCompleted,
    TextDelta,
    ToolCallCompleted,
    ToolCallStarted,
    Usage,
)

__all__ = ["response_events"]


def response_events(response: Response) -> list[Event]:
    """Return the events of a stream that would fold to `response`, its text in one piece."""
    message = response.message or Message(role="assistant", content="")
    text = response.output_text
    events: list[Event] = [MessageStarted(message=Message(role="assistant", content=""))]
    if text:
        events.append(TextDelta(id=None, delta=text))
    events.extend(ToolCallStarted(id=call.id, name=call.name) for call in response.tool_calls)
    if text:
        events.append(TextCompleted(id=None, text=text))
    events.extend(
        ToolCallCompleted(
            id=call.id,
            name=call.name,
            arguments=call.arguments,
            raw_arguments=call.raw_arguments or "{}",
            provider_data=call.provider_data,
        )
        for call in response.tool_calls
    )
    reported = response.usage != Usage()
    if reported:
        events.append(RawChunk(kind="usage", payload=response.usage))
    events.append(
        MessageCompleted(
            message=message,
            finish_reason=response.finish_reason,
            raw_finish_reason=response.raw_finish_reason,
            response_id=response.id,
            model=response.model,
            usage=response.usage if reported else None,
            reasoning=response.reasoning,
            refusal=response.refusal,
            provider_data=response.provider_data,
        )
    )
    return events
