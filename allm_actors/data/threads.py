"""Conversations."""

from typing import Self

from pydantic import Field

from allm_actors.data.base import JsonObject, Model
from allm_actors.data.messages import Message


class Thread(Model):
    """A conversation: a list of messages. Adding to it returns a new one, with the same `metadata`."""

    messages: list[Message] = Field(default_factory=list)
    metadata: JsonObject = Field(default_factory=dict)

    @classmethod
    def from_messages(cls, messages: list[Message]) -> Self:
        """Return a thread of these messages."""
        return cls(messages=messages)

    def add_message(self, message: Message) -> Self:
        """Return a thread with one more message."""
        return self.add_messages([message])

    def add_messages(self, messages: list[Message]) -> Self:
        """Return a thread with more messages at its end."""
        return type(self)(messages=[*self.messages, *messages], metadata=self.metadata)

    def add_system(self, text: str) -> Self:
        """Return a thread with one more system message."""
        return self.add_message(Message(role="system", content=text))

    def add_user(self, text: str) -> Self:
        """Return a thread with one more user message."""
        return self.add_message(Message(role="user", content=text))

    def add_assistant(self, text: str) -> Self:
        """Return a thread with one more assistant message."""
        return self.add_message(Message(role="assistant", content=text))

    def last_message(self) -> Message | None:
        """Return the last message, `None` of an empty thread."""
        return self.messages[-1] if self.messages else None
