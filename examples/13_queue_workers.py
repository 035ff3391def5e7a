"""Workers that take jobs from a queue and share one engine; stopping them loses no job.

Four supervised processes run a tool loop for each job. Told to stop, each finishes the job it holds and takes
no other; what is left stays in the queue. A job whose worker dies in the midst of it goes back, too.

Prints:

    stopped with jobs left: True
    every job answered once or still queued: True
    an answer: 7 has 1 digit(s)
"""

import queue
import threading

import allm_actors as allm
from allm_actors import beam
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer, ReceivedRequest, Reply

JOBS = 200


@allm.tool
def digits(number: int) -> int:
    """Count the digits of a number."""
    return len(str(number))


def model(request: ReceivedRequest) -> Reply:
    """What the loopback provider does: it asks for the tool, then says what it heard."""
    messages = request.json["messages"]
    number = messages[0]["content"]
    if messages[-1]["role"] == "tool":
        return Reply(f"{number} has {messages[-1]['content']} digit(s)")
    return Reply(tool_calls=[allm.ToolCall(id="1", name="digits", arguments={"number": int(number)})])


class Worker(beam.Process):
    """Takes a job, asks the engine, notes the answer, again and again until told to stop."""

    def init(self, desk: "Desk") -> None:
        self.desk = desk
        beam.send(self.pid, "next")

    def handle_info(self, message: object) -> beam.Stop | None:  # noqa: ARG002
        desk = self.desk
        if desk.closing.is_set():
            return beam.Stop("normal")
        try:
            job = desk.jobs.get(timeout=0.05)
        except queue.Empty:
            job = None
        if job is not None:
            try:
                desk.answers.put((job, allm.chat("desk", str(job)).text))
            except BaseException:
                desk.jobs.put(job)  # whatever ended this worker: somebody else will take the job
                raise
        beam.send(self.pid, "next")
        return None


class Desk:
    """What the workers share."""

    def __init__(self) -> None:
        self.jobs: queue.Queue[int] = queue.Queue()
        self.answers: queue.Queue[tuple[int, str | None]] = queue.Queue()
        self.closing = threading.Event()


def main() -> None:
    desk = Desk()
    for job in range(JOBS):
        desk.jobs.put(job)
    with FakeServer(default=model) as server:
        engine = allm.Engine(adapter=OpenAI(base_url=server.base_url), model="any", tools=[digits])
        with allm.start_engine(engine, name="desk"):
            workers = [
                beam.ChildSpec(id=n, start=Worker, args=(desk,), restart="transient") for n in range(4)
            ]
            supervisor = beam.Supervisor.start(workers)
            ended = beam.Inbox()
            for _, pid, _ in beam.which_children(supervisor):
                beam.monitor(pid, to=ended)

            answers = [desk.answers.get(timeout=20) for _ in range(8)]
            desk.closing.set()
            for _ in workers:
                assert ended.receive(timeout=20).reason == "normal"
            beam.stop(supervisor)

    answers += [desk.answers.get_nowait() for _ in range(desk.answers.qsize())]
    left = [desk.jobs.get_nowait() for _ in range(desk.jobs.qsize())]
    print("stopped with jobs left:", bool(left))
    done = [job for job, _ in answers]
    print("every job answered once or still queued:", sorted(done + left) == list(range(JOBS)))
    print("an answer:", dict(answers)[7])


if __name__ == "__main__":
    main()
