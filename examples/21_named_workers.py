"""A registry of named workers: one process for each customer, started when first asked for.

Shows: names as addresses, a dynamic supervisor that starts workers on demand, a race between two threads
that want the same worker settled by the name table, and a worker that is gone being started afresh.

Needs nothing but `allm_actors.beam`: no model, no network.

Prints:

    ann has 50 and bob has 50
    workers: 2
    names: [('account', 'ann'), ('account', 'bob')]
"""

import threading

from allm_actors import beam


class Account(beam.Process):
    """Keeps one customer's balance; nobody else can touch it."""

    def init(self, customer: str) -> None:
        self.customer = customer
        self.balance = 0

    def handle_call(self, request: int, sender: beam.Sender) -> int:  # noqa: ARG002
        self.balance += request
        return self.balance


class Bank:
    """Finds the process of a customer, or starts it."""

    def __init__(self) -> None:
        self.supervisor = beam.DynamicSupervisor.start()

    def deposit(self, customer: str, amount: int) -> int:
        """Add to a balance; the new balance."""
        return int(beam.call(self._account(customer), amount))

    def _account(self, customer: str) -> beam.Pid:
        name = ("account", customer)
        if pid := beam.whereis(name):
            return pid
        spec = beam.ChildSpec(id=name, start=Account, args=(customer,), name=name, restart="temporary")
        try:
            child = beam.start_child(self.supervisor, spec)
        except beam.StartError as error:
            if isinstance(error.reason, beam.NameTaken) and error.reason.pid:  # another thread was faster
                return error.reason.pid
            raise
        assert child is not None  # only a child that asks to be ignored is
        return child

    def close(self) -> None:
        """End every account."""
        beam.stop(self.supervisor)


def main() -> None:
    bank = Bank()

    threads = [threading.Thread(target=bank.deposit, args=(name, 10)) for name in ("ann", "bob") * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    print("ann has", bank.deposit("ann", 0), "and bob has", bank.deposit("bob", 0))
    print("workers:", beam.count_children(bank.supervisor).active)
    print("names:", sorted(name for name in beam.registered() if isinstance(name, tuple)))
    bank.close()


if __name__ == "__main__":
    main()
