"""A service on asyncio: one line in, an answer in pieces out; a client that hangs up halts its model.

Streams are asynchronous iterators: the event loop never blocks, and cancelling the task that reads closes the
stream. The answer races against the end of the client's input, whichever comes first.

Prints:

    first client: Links tell you.
    100 clients at once, answers that differ: 1
    a client that hung up: the model was halted: True
"""

import asyncio
from contextlib import suppress

import allm_actors as allm
from allm_actors.events import TextDelta
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, ReceivedRequest, Reply


class Service:
    """Answers each connection's one line."""

    def __init__(self, engine: allm.Engine) -> None:
        self.engine = engine

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the answer ends or the client does."""
        question = (await reader.readline()).decode().strip()
        answering = asyncio.create_task(self.answer(question, writer))
        leaving = asyncio.create_task(reader.read())  # returns when the client hangs up
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        for task in (answering, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        writer.close()

    async def answer(self, question: str, writer: asyncio.StreamWriter) -> None:
        """Write the pieces as they come. Cancelled, it leaves the `with`, which halts the model."""
        async with allm.stream_generate(self.engine, question) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    writer.write(event.delta.encode())
                    await writer.drain()


async def ask(port: int, question: str) -> str:
    """What a client does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{question}\n".encode())
    said = await reader.read()
    writer.close()
    return said.decode()


def model(received: ReceivedRequest) -> Reply:
    """The loopback model: to `wait` it says one word and falls silent."""
    if received.json["messages"][0]["content"] == "wait":
        return Reply("Well ...", fault="stall", after=2)
    return Reply(chunks=["Links", " tell", " you."])


async def main() -> None:
    with FakeServer(default=model) as provider:
        service = Service(allm.Engine(adapter=OpenAI(base_url=provider.base_url), model="any"))
        server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            print("first client:", await ask(port, "links"))

            answers = await asyncio.gather(*(ask(port, "links") for _ in range(100)))
            print("100 clients at once, answers that differ:", len(set(answers)))

            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"wait\n")
            await reader.readexactly(4)
            writer.close()  # hang up while the model is silent
            halted = await asyncio.to_thread(provider.requests[-1].wait_disconnected)
            print("a client that hung up: the model was halted:", halted)


if __name__ == "__main__":
    asyncio.run(main())
