"""A conversation of several turns: a thread is data, and the next question goes onto its end.

The loopback model shows that it is sent all that was said before.

Prints:

    user: My name is Ada.
    assistant: I know 1 message, the first: My name is Ada.
    user: What is my name?
    assistant: I know 3 messages, the first: My name is Ada.
"""

import allm_actors as allm
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, ReceivedRequest


def model(request: ReceivedRequest) -> str:
    """Tell what is known so far."""
    said = request.json["messages"]
    return f"I know {len(said)} message{'s' * (len(said) > 1)}, the first: {said[0]['content']}"


def main() -> None:
    with FakeServer(default=model) as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="any")

        result = allm.chat(engine, "My name is Ada.")
        thread = result.thread
        assert thread is not None

        result = allm.chat(engine, [*thread.messages, allm.user("What is my name?")])
        assert result.thread is not None
        for message in result.thread.messages:
            print(f"{message.role}: {message.content}")


if __name__ == "__main__":
    main()
