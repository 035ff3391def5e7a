"""A consumer that lives on a queue: prompts come in, answers go out, and a stop reaches the model.

Shows: worker threads that take prompts from a plain `queue.Queue` and stream the answers; telling them to
stop while the model is silent in the midst of an answer, which ends the wait and the model's work with it.

Prints:

    one: Yes.
    two: Yes.
    stopped in the midst of: three
    the server saw the connection close: True
"""

import queue
import threading

import allm_actors as allm
from allm_actors.events import MessageCompleted, TextDelta
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, ReceivedRequest, Reply


class Consumer(threading.Thread):
    """Takes prompts until it is stopped; `stop` may come from any thread, at any moment."""

    def __init__(self, engine: allm.Engine, prompts: queue.Queue[str], answers: queue.Queue[str]) -> None:
        super().__init__(name="consumer")
        self.engine, self.prompts, self.answers = engine, prompts, answers
        self.mailbox = allm.Mailbox()
        self.heard = threading.Event()

    def run(self) -> None:
        prompt = None
        with self.mailbox:
            while not self.mailbox.closed:
                prompt = self.prompts.get()
                allm.open_stream(self.engine, prompt, into=self.mailbox)
                words = []
                for envelope in self.mailbox:  # ends with the answer, or when the mailbox is closed
                    if isinstance(envelope.event, TextDelta):
                        words.append(envelope.event.delta)
                        self.heard.set()
                    elif isinstance(envelope.event, MessageCompleted):
                        self.answers.put(f"{prompt}: {''.join(words)}")
                        self.heard.clear()
            self.answers.put(f"stopped in the midst of: {prompt}")

    def stop(self) -> None:
        """Halt the model's answer and end the thread; returns when it has ended."""
        self.mailbox.close()
        self.join(timeout=10)


def model(request: ReceivedRequest) -> Reply:
    """Answer quickly, but fall silent at the third prompt."""
    if request.json["messages"][0]["content"] == "three":
        return Reply("Well, let me see.", fault="stall", after=3)
    return Reply("Yes.")


def main() -> None:
    prompts: queue.Queue[str] = queue.Queue()
    answers: queue.Queue[str] = queue.Queue()
    with FakeServer(default=model) as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="any")
        consumer = Consumer(engine, prompts, answers)
        consumer.start()
        for prompt in ("one", "two"):
            prompts.put(prompt)
            print(answers.get(timeout=10))
        prompts.put("three")
        consumer.heard.wait(timeout=10)
        consumer.stop()
        print(answers.get(timeout=10))
        print("the server saw the connection close:", server.requests[-1].wait_disconnected())


if __name__ == "__main__":
    main()
