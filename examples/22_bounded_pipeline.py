"""A bounded pipeline: a fast producer that is told at once when the next stage cannot keep up.

Shows: a bounded mailbox (`max_mailbox`), `MailboxFull` as back-pressure instead of memory that grows, two
linked stages of which neither outlives the other, and a monitor that sees the pipeline end.

Needs nothing but `allm_actors.beam`: no model, no network.

Prints:

    WORD 0
    WORD 1
    ...
    WORD 11
    the fast stage was held back: True
    with the writer gone, the other stage ended: shutdown
"""

from allm_actors import beam


class Writer(beam.Process):
    """The slow stage: takes at most four lines at a time into its mailbox."""

    max_mailbox = 4

    def init(self, tickets: beam.Inbox, output: beam.Inbox) -> None:
        self.tickets, self.output = tickets, output

    def handle_cast(self, line: str) -> None:
        self.tickets.receive(timeout=5)  # one ticket a line: this stage is as slow as its consumer
        beam.send(self.output, line)


class Upper(beam.Process):
    """The fast stage, linked to the slow one: turns words into lines."""

    def init(self, writer: beam.Pid) -> None:
        beam.link(writer)
        self.writer = writer

    def handle_call(self, request: str, sender: beam.Sender) -> bool:  # noqa: ARG002
        try:
            beam.cast(self.writer, request.upper())
        except beam.MailboxFull:
            return False  # the caller decides: wait, drop, or slow down
        return True


def main() -> None:
    tickets, output, ends = beam.Inbox(), beam.Inbox(), beam.Inbox()
    writer = Writer.start(tickets, output)
    upper = Upper.start(writer)
    beam.monitor(upper, to=ends)

    words = [f"word {number}" for number in range(12)]
    refused = 0
    for word in words:
        while not beam.call(upper, word):
            refused += 1
            tickets.put("ticket")  # let the slow stage take a line, and wait until it has
            print(output.receive(timeout=5))
    for _ in range(len(words) - refused):
        tickets.put("ticket")
        print(output.receive(timeout=5))
    print("the fast stage was held back:", refused > 0)

    beam.exit(writer, "shutdown")
    print("with the writer gone, the other stage ended:", ends.receive(timeout=5).reason)


if __name__ == "__main__":
    main()
