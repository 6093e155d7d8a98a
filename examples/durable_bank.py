"""A bank that never loses or doubles a transfer, while the process that keeps its accounts is killed every second."""

from __future__ import annotations

import random
import threading

import shoal as ray

ACCOUNTS = 10
OPENING = 1_000
KILLS = 3


@ray.remote(durable=True, checkpoint_every=200)
class Bank:
    def __init__(self) -> None:
        self.balances = [OPENING] * ACCOUNTS
        #: Transfers made, by the teller that ordered them.
        self.made: dict[str, int] = {}

    def transfer(self, teller: str, source: int, target: int, amount: int) -> int:
        """Answers with how many transfers this teller has made. Raises: ValueError; nothing is transferred then."""
        if self.balances[source] < amount:
            raise ValueError("insufficient funds")
        self.balances[source] -= amount
        self.balances[target] += amount
        self.made[teller] = self.made.get(teller, 0) + 1
        return self.made[teller]

    def total(self) -> int:
        return sum(self.balances)

    def transfers(self) -> int:
        return sum(self.made.values())


@ray.remote(num_cpus=0)
class Closing:
    """Tells the tellers when to go home."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def is_closed(self) -> bool:
        return self.closed


@ray.remote(num_cpus=0)
def work(name: str, bank: ray.actor.ActorHandle, closing: ray.actor.ActorHandle) -> tuple[int, int]:
    """Transfers and refusals of one teller, by the answers."""
    rng = random.Random(name)
    made = refused = 0
    while not ray.get(closing.is_closed.remote()):
        orders = [
            bank.transfer.remote(name, *rng.sample(range(ACCOUNTS), 2), rng.randrange(1, OPENING)) for _ in range(10)
        ]
        for order in orders:
            try:
                made += 1
                # Each answer comes once, in order: no transfer was lost, and none was made twice.
                assert ray.get(order) == made
            except ValueError:
                made -= 1
                refused += 1
    return made, refused


def main() -> None:
    ray.init()
    bank, closing = Bank.remote(), Closing.remote()
    tellers = [work.remote(name, bank, closing) for name in ("Ada", "Edsger", "Grace")]
    while not ray.get(bank.transfers.remote()):
        threading.Event().wait(0.1)
    for _ in range(KILLS):
        threading.Event().wait(1.0)
        ray.kill(bank, no_restart=False)  # SIGKILL, as by the kernel
    ray.get(closing.close.remote())
    made = sum(made for made, _ in ray.get(tellers))
    assert ray.get(bank.transfers.remote()) == made
    assert ray.get(bank.total.remote()) == ACCOUNTS * OPENING
    print(f"{made:,} transfers, {KILLS} kills: {ACCOUNTS * OPENING:,} are in the accounts as before")
    ray.shutdown()


if __name__ == "__main__":
    main()
