"""A tool that has to ask the user something before the model can go on.

A handler that returns `AskUser` ends the run; the session waits, for as long as it takes, and the user's
reply is what goes on.

Prints:

    awaiting_user: Which airport, Oslo or Bergen? (Norway has two)
    completed: Booked: a flight to Bergen.
"""

import allm_actors as allm
from allm_actors import AskUser, Session
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, ReceivedRequest, Reply


@allm.tool
def book_flight(country: str) -> AskUser:
    """Book a flight to a country."""
    return AskUser(f"Which airport, Oslo or Bergen? ({country} has two)", choices=["Oslo", "Bergen"])


def model(request: ReceivedRequest) -> Reply | str:
    """Call the tool for the first message; then say what the user chose."""
    said = request.json["messages"]
    if len(said) == 1:
        return Reply(tool_calls=[allm.ToolCall(id="1", name="book_flight", arguments={"country": "Norway"})])
    return f"Booked: a flight to {said[-1]['content']}."


def main() -> None:
    with FakeServer(default=model) as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="any", tools=[book_flight])

        session, _ = Session.start(engine, "Book me a flight to Norway.")
        print(f"{session.status}: {session.pending_question}")

        session, result = Session.reply(engine, session, "Bergen")
        print(f"{session.status}: {result.text}")


if __name__ == "__main__":
    main()
