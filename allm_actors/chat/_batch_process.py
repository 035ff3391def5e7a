"""The process behind a batch of tool calls.

It starts one process for each call, in call order as slots become free, keeps the time limits, and puts the
events where the run takes them. It runs nobody's code, so it is never late.

Guarantees:
    - Every call comes to one outcome and one pair of events, whatever becomes of its process.
    - A halt does not cut the batch short: every call is started, and finishes.
    - A handler that is given up holds its own thread and nothing else.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from allm_actors import beam
from allm_actors.beam._cell import kill
from allm_actors.beam.runtime import task_supervisor
from allm_actors.chat._calls import Failure, settle_without_policy, span_of, tool_error
from allm_actors.chat._jobs import (
    Claim,
    Expired,
    Job,
    Settled,
    Skipped,
    Work,
    perform,
    settle_later,
    settled,
    skip,
    skipped_plainly,
    started,
    timeout,
)
from allm_actors.chat._log import log
from allm_actors.data import AskUserRequested, ToolExecutionCompleted, ToolHalt, ToolResultEncoded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from allm_actors import telemetry
    from allm_actors.beam import Pid
    from allm_actors.chat._calls import Toolbox
    from allm_actors.data import Event, ToolCall
    from allm_actors.errors import ToolError

__all__ = ["GONE", "BatchProcess"]

GONE: Final = (beam.StartError, beam.NoProcess)
"""What starting a process raises when the system, or the supervisor, has no room for it."""


class BatchProcess(beam.Process):
    """Serves one batch: see the module."""

    acknowledged = False  # whoever starts it does not wait for `init`

    def init(
        self,
        box: Toolbox,
        calls: Sequence[ToolCall],
        manual: Sequence[ToolCall],
        outbox: beam.Inbox,
        parent: telemetry.Span | None,
    ) -> None:
        """Take over a batch.

        Args:
            box: What the calls share.
            calls: Those to execute.
            manual: Those to answer as skipped if one of the others halts.
            outbox: Where events go: pairs of a call's index (`None` for all the skipped ones) and a list.
            parent: The span of the step.
        """
        self._box, self._manual, self._outbox, self._parent = box, manual, outbox, parent
        self._supervisor = task_supervisor()
        me = self.pid
        self._send = lambda message: beam.send(me, message)
        self._jobs = [Job(index, call, Claim(self._send)) for index, call in enumerate(calls)]
        self._waiting = deque(self._jobs)
        self._slots = box.max_concurrency or max(1, min(len(calls), 2 * (os.cpu_count() or 1)))
        self._open = len(self._jobs)
        self._halted = False
        self._by_pid: dict[Pid, Job] = {}
        self._skipping: Pid | None = None
        self.on_exit(self._give_up)
        self.continue_with(None)

    def handle_continue(self, token: Any) -> beam.Stop | None:  # noqa: ARG002
        """Start what may start."""
        return self._go_on()

    def handle_info(self, message: Any) -> Any:
        """Hear of a call: it is settled, its time is over, its process has ended."""
        match message:
            case Settled(index, events):
                self._note(self._jobs[index], events)
            case Expired(index, limit):
                self._expire(self._jobs[index], limit)
            case Skipped(events):
                self._outbox.put((None, events))
                return beam.Stop("normal")
            case beam.Down(pid=pid) if pid is not None and pid == self._skipping:
                return self._skip_plainly()
            case beam.Down(pid=pid) if pid is not None:
                if (job := self._by_pid.pop(pid, None)) is not None:
                    self._lost(job)
            case _:
                return super().handle_info(message)
        return self._go_on()

    # --- starting and ending --------------------------------------------------------------------------

    def _go_on(self) -> beam.Stop | None:
        while self._waiting and self._slots > 0:
            self._begin(self._waiting.popleft())
        if self._open or self._skipping is not None:
            return None
        if not (self._halted and self._manual):
            return beam.Stop("normal")
        if self._box.runs_own_code_only:
            return self._skip_plainly()
        try:
            self._skipping = self._start("skipped calls", skip, self._box, self._manual, self._send)
            beam.monitor(self._skipping)
        except GONE:
            return self._skip_plainly()
        return None

    def _skip_plainly(self) -> beam.Stop:
        self._outbox.put((None, skipped_plainly(self._manual)))
        return beam.Stop("normal")

    def _begin(self, job: Job) -> None:
        call = job.call
        self._outbox.put((job.index, [started(call)]))
        if self._box.answers(call):
            job.span = span_of(self._box, call, self._parent)
            content = self._box.help(call)
            job.span.stop(result=content)
            completed = ToolExecutionCompleted(id=call.id, name=call.name, result=content)
            self._note(job, [completed, ToolResultEncoded(id=call.id, content=content)])
            return
        self._slots -= 1
        job.holds_slot = True
        try:
            self._run(job, perform, self._box, job, job.claim, self._parent, self.pid)
        except GONE as error:
            self._settle_elsewhere(
                job, tool_error(call, "handler_exit", f"{call.name} could not start: {error}")
            )

    def _run(self, job: Job, work: Callable[..., None], *args: Any) -> None:
        """Have a process work for a call, and hear of its end."""
        job.pid = pid = self._start(job.call.name, work, *args)
        self._by_pid[pid] = job
        job.watch = beam.monitor(pid)

    def _start(self, name: str, work: Callable[..., None], *args: Any) -> Pid:
        """Start a supervised process that works in a copy of the run's context variables."""
        return beam.TaskSupervisor.start_child(
            self._supervisor, Work(name, self._box.variables.copy(), work), *args
        )

    def _note(self, job: Job, events: list[Event]) -> None:
        """Pass the two events of a settled call on, in one piece."""
        if job.settled:
            return
        job.settled = True
        self._open -= 1
        self._free(job)
        self._halted = self._halted or isinstance(events[-1], ToolHalt | AskUserRequested)
        self._outbox.put((job.index, events))

    def _free(self, job: Job) -> None:
        if job.holds_slot:
            job.holds_slot = False
            self._slots += 1

    def _expire(self, job: Job, limit: str) -> None:
        """Give a handler up whose time is over, unless it has ended after all."""
        if job.settled or job.elsewhere or not self._abandon(job, "timeout", limit):
            return
        self._free(job)
        self._settle_elsewhere(job, timeout(self._box, job.call, limit))

    def _lost(self, job: Job) -> None:
        """A process ended: if it was not settled before, somebody ended it from outside."""
        if job.settled:
            return
        error = tool_error(job.call, "handler_exit", f"the process of {job.call.name} was ended")
        if job.elsewhere or job.claim.take() is None:  # it was settling: its policy may have been asked
            self._note(job, settle_without_policy(job.call, error))
            return
        job.cancelled.set()
        self._free(job)
        self._settle_elsewhere(job, error)

    def _settle_elsewhere(self, job: Job, error: ToolError) -> None:
        """Have a process of its own ask the policy and encode; without anybody's code it is done here."""
        job.claim = Claim(self._send)
        if self._box.runs_own_code_only:
            self._note(job, settled(self._box, job, Failure(error)))
            return
        job.elsewhere = True
        try:
            self._run(job, settle_later, self._box, job, error)
        except GONE:
            self._note(job, settle_without_policy(job.call, error))

    # --- giving up ------------------------------------------------------------------------------------

    def _abandon(self, job: Job, reason: str, limit: str = "tool_timeout") -> bool:
        """Cut every path from a handler to the run; `False` if it has ended.

        1. Who gives up says why, then tries to take the claim; the end of the handler tries, then looks.
        2. So the handler finds either the claim, or the reason for which it lost it.
        """
        claim, pid = job.claim, job.pid
        claim.lost_to = reason
        if claim.take() is None:
            return False
        job.cancelled.set()
        if pid is not None:
            self._by_pid.pop(pid, None)
            if job.watch is not None:
                beam.demonitor(job.watch)
            log.warning(
                "tool.abandoned",
                tool=job.call.name,
                tool_call_id=job.call.id,
                request_id=self._box.request_id,
                reason=reason,
                limit=self._box.timeout if limit == "tool_timeout" else limit,
            )
            # Dead for everybody else from here on; its thread shows as a zombie for as long as it runs.
            kill(pid._cell, expected=True)  # noqa: SLF001
        return True

    def _give_up(self) -> None:
        """The batch is over: whatever still runs is given up. Runs after a kill, too."""
        for job in self._jobs:
            if job.pid is None or job.settled:
                continue
            if not self._abandon(job, "closed"):  # a policy or an encoder is at it, and nobody waits for that
                kill(job.pid._cell, expected=True)  # noqa: SLF001
            job.cancelled.set()
            if job.span is not None:
                job.span.finish()
        if self._skipping is not None:
            kill(self._skipping._cell, expected=True)  # noqa: SLF001
