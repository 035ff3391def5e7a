"""A worker that crashes, and is back before anybody misses it.

Shows: a supervisor with one permanent child, a call that learns of the crash, the same name working again
after the restart, and the process tree with its restart count.

Needs nothing but `allm_actors.beam`: no model, no network.

Prints:

    6 / 3 = 2.0
    the call was told at once: <Divider ...> ended before it answered: crashed with ZeroDivisionError: ...
    a new process: True under the same name: 8 / 4 = 2.0
    Supervisor ... (..., restarts 1)
    └── Divider ... 'divider' (..., restarts 1)
"""

import logging
import queue

from allm_actors import beam


class Divider(beam.Process):
    """Divides, and dies of zero like anybody who does not expect it."""

    def init(self, births: queue.Queue[beam.Pid]) -> None:
        births.put(self.pid)

    def handle_call(self, request: tuple[int, int], sender: beam.Sender) -> float:  # noqa: ARG002
        dividend, divisor = request
        return dividend / divisor


def main() -> None:
    logging.getLogger("allm_actors").setLevel(logging.CRITICAL)  # hide the crash report: this crash is meant
    births: queue.Queue[beam.Pid] = queue.Queue()
    supervisor = beam.Supervisor.start(
        [beam.ChildSpec(id="divider", start=Divider, args=(births,), name="divider")],
        strategy="one_for_one",
        max_restarts=3,
        max_seconds=5.0,
    )
    first = births.get(timeout=5)
    print("6 / 3 =", beam.call("divider", (6, 3)))

    try:
        beam.call("divider", (1, 0))
    except beam.ProcessExit as exit_:
        print("the call was told at once:", exit_)

    second = births.get(timeout=5)  # the supervisor has started it again
    print("a new process:", second != first, "under the same name:", end=" ")
    print("8 / 4 =", beam.call(second, (8, 4)))
    print(beam.tree())
    beam.stop(supervisor)


if __name__ == "__main__":
    main()
