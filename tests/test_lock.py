"""`ChannelLock`: first in, first out, and free in the end whatever happens to those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from org.errors import LockTimeout
from org.lock import ChannelLock


class Clockwork(asyncio.SelectorEventLoop):
    """An event loop whose clock moves only when told to."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Run everything that is ready, and what that makes ready. Here a wake-up takes two rounds
        at most, a time-out three."""
        for _ in range(6):
            self.call_soon(self.stop)
            self.run_forever()


class Waits(RuleBasedStateMachine):
    """Any interleaving of asking, cancelling, timing out and letting go."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Clockwork()
        self.lock = ChannelLock("the file")
        self.tasks: list[asyncio.Task[Callable[[], None]]] = []
        self.queue: list[int] = []  # who should be waiting, in order
        self.owner: int | None = None  # who should hold it
        self.deadlines: dict[int, float] = {}
        self.releases: dict[int, Callable[[], None]] = {}

    def teardown(self) -> None:
        while self.owner is not None:
            self.let_go()
        assert not self.lock.locked
        self.loop.close()

    def _hand_on(self) -> None:
        self.owner = self.queue.pop(0) if self.queue else None

    @rule(timeout=st.sampled_from([None, None, 0.0, 1.0, 2.0]))
    def ask(self, timeout: float | None) -> None:
        number = len(self.tasks)
        self.tasks.append(self.loop.create_task(self.lock.wait_for_lock(timeout)))
        if self.owner is None:
            self.owner = number
        else:
            self.queue.append(number)
            if timeout is not None:
                self.deadlines[number] = self.loop.now + timeout
        self.loop.settle()
        self._expire()

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.now += seconds
        self.loop.settle()
        self._expire()

    def _expire(self) -> None:
        for number in [n for n in self.queue if self.deadlines.get(n, self.loop.now + 1) <= self.loop.now]:
            self.queue.remove(number)
            with pytest.raises(LockTimeout, match="the file"):
                self.tasks[number].result()

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.queue))
        self.queue.remove(number)
        self.tasks[number].cancel()
        self.loop.settle()
        assert self.tasks[number].cancelled()

    @precondition(lambda self: self.owner is not None)
    @rule()
    def let_go(self) -> None:
        assert self.owner is not None
        self.releases[self.owner]()
        self._hand_on()
        self.loop.settle()
        self._learn()

    @precondition(lambda self: self.owner is not None and self.queue)
    @rule(data=st.data())
    def let_go_while_waiters_are_cancelled(self, data: st.DataObject) -> None:
        """Some are cancelled just before they would be handed the lock, some just after it."""
        assert self.owner is not None
        some = st.lists(st.sampled_from(self.queue), unique=True)
        before, after = data.draw(some), data.draw(some)
        for number in before:
            self.tasks[number].cancel()
        self.releases[self.owner]()
        for number in after:
            self.tasks[number].cancel()
        gone = {*before, *after}
        self.queue = [number for number in self.queue if number not in gone]
        self._hand_on()
        self.loop.settle()
        self._learn()
        assert all(self.tasks[number].cancelled() for number in gone)

    @precondition(lambda self: self.releases)
    @rule(data=st.data())
    def let_go_again(self, data: st.DataObject) -> None:
        stale = [number for number in self.releases if number != self.owner]
        if stale:
            self.releases[data.draw(st.sampled_from(stale))]()
            self.loop.settle()

    def _learn(self) -> None:
        if self.owner is not None and self.owner not in self.releases:
            self.releases[self.owner] = self.tasks[self.owner].result()

    @invariant()
    def held_by_exactly_the_one_whose_turn_it_is(self) -> None:
        self._learn()
        assert self.lock.locked is (self.owner is not None)
        assert [n for n, task in enumerate(self.tasks) if not task.done()] == self.queue
        answered = {
            n for n, t in enumerate(self.tasks) if t.done() and not t.cancelled() and not t.exception()
        }
        assert answered == set(self.releases)
        assert len(self.lock._waiting) == len(self.queue)  # nobody who gave up is kept


TestWaits = Waits.TestCase
TestWaits.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


async def test_tasks_get_it_in_the_order_in_which_they_asked() -> None:
    lock, order, inside = ChannelLock(), [], 0

    async def work(number: int) -> None:
        nonlocal inside
        async with lock.hold():
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            order.append(number)
            inside -= 1

    async with asyncio.TaskGroup() as group:
        for number in range(1000):
            group.create_task(work(number))
    assert order == list(range(1000))
    assert not lock.locked


async def test_an_error_inside_the_block_lets_go() -> None:
    lock = ChannelLock()
    with pytest.raises(ValueError, match="inside"):
        async with lock.hold(1.0):
            raise ValueError("inside")
    assert not lock.locked


async def test_a_newcomer_does_not_get_in_before_the_one_that_was_handed_it() -> None:
    lock, order = ChannelLock(), []
    release = await lock.wait_for_lock()

    async def wait(name: str) -> None:
        async with lock.hold():
            order.append(name)

    first = asyncio.create_task(wait("first"))
    await asyncio.sleep(0)
    release()  # handed to `first`, which has not run yet
    await wait("newcomer")
    await first
    assert order == ["first", "newcomer"]


async def test_a_free_lock_is_had_at_once_whatever_the_deadline() -> None:
    lock = ChannelLock()
    (await lock.wait_for_lock(0))()
    async with lock.hold(0):
        with pytest.raises(LockTimeout) as caught:
            await lock.wait_for_lock(0)
    assert caught.value.message == "not free after 0 s: a lock"


async def test_a_release_taken_twice_does_not_free_the_next_holder() -> None:
    lock = ChannelLock()
    release = await lock.wait_for_lock()
    release()
    second = await lock.wait_for_lock()
    release()
    assert lock.locked
    second()
    assert not lock.locked
