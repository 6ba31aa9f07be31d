"""A worker's agents: started when there is mail for their users, kept while there is more.

The invariant: whatever becomes of an agent or of the broker, everyone who asked is answered, by 451
if nobody knows how it went. One user's agent holds up no other's.
"""

import logging
import os
import selectors
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from lmtp_proto import Recipient, Reply
from mailstore import StoreObserver

from ._packets import PacketError, receive, send

_logger: Final = logging.getLogger("lmtp_server")

# Seconds after which the broker is asked again that had no room for one more agent.
_RETRY: Final = 0.1
_LONGEST_ANSWER: Final = 256


@dataclass(slots=True, eq=False)
class Due:
    """The reply for a recipient that an agent owes."""

    recipient: Recipient
    report: Callable[[object], None] | None = None
    """Takes what the agent says beside its reply, before that is known."""
    reply: Future[Reply] = field(default_factory=Future)

    def fail(self) -> None:
        """Nobody knows: the client is to try again."""
        text = f"<{self.recipient}> temporary internal error"
        self.reply.set_result(Reply(451, text, enhanced="4.3.0"))


@dataclass(slots=True, eq=False)
class Request:
    """What an agent is asked: packets, one with a descriptor, and the answers that are due."""

    packets: Sequence[bytes]
    descriptor: int
    """Goes with the last packet; the pool closes it. -1 is none."""
    due: dict[int, Due]
    """The answers that it leads to, by number."""
    sent: int = 0
    deadline: float = 0.0


@dataclass(slots=True, eq=False)
class _Agent:
    user: str
    number: int = 0
    channel: socket.socket | None = None
    queue: deque[Request] = field(default_factory=deque)
    waiting: dict[int, tuple[Due, float]] = field(default_factory=dict)
    idle_since: float = 0.0
    # Recipients whose copies no batch has been told of.
    unstored: int = 0


class AgentPool:
    """The agents of one worker, asked for over `broker`, its channel to the broker.

    At most `limit` at a time; one that had nothing to do for `idle` seconds is let go, and where
    the limit is reached the one that had nothing to do for longest. A request that is not answered
    within `timeout` seconds has failed, and its agent is given up. `lost` is called when the broker
    has ended: the agents that are there go on, but there will be no more. `store` is told of the
    batches of agents whose options want that. Used by any thread of the process that has made it;
    the work is done in a thread of its own.
    """

    def __init__(
        self,
        broker: socket.socket,
        *,
        limit: int = 64,
        idle: float = 60.0,
        timeout: float = 150.0,
        lost: Callable[[], None] = lambda: None,
        store: StoreObserver | None = None,
    ) -> None:
        self._broker = broker
        self._store = store
        self._limit = limit
        self._idle = idle
        self._timeout = timeout
        self._lost = lost
        self._numbers = iter(range(1, 10**10))
        self._new: deque[tuple[str, Request]] = deque()
        # Those used longest ago come first.
        self._agents: OrderedDict[str, _Agent] = OrderedDict()
        # Users whose agent has to wait for room.
        self._without: deque[_Agent] = deque()
        self._retry_at = 0.0
        self._closed = False
        self._broken = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._reader, self._writer = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._broker.setblocking(False)
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def number(self) -> int:
        """A number for an answer that is due; no other has it."""
        return next(self._numbers)

    def ask(self, user: str, request: Request) -> None:
        """Put a request to the agent of `user`. The answers come in another thread."""
        request.deadline = time.monotonic() + self._timeout
        with self._lock:
            if self._closed:
                _fail(request)
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agents", daemon=True)
                self._thread.start()
            self._new.append((user, request))
        self._wake()

    def close(self) -> None:
        """Finish what was asked, let the agents go and close the channel to the broker."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._wake()
        if thread is not None:
            thread.join()
        for end in (self._broker, self._reader, self._writer):
            end.close()
        self._selector.close()

    def _wake(self) -> None:
        try:
            self._writer.send(b"w")
        except BlockingIOError:
            # It will wake up.
            pass

    def _run(self) -> None:
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._selector.register(self._broker, selectors.EVENT_READ)
        try:
            while not self._closed or self._new or any(map(_is_busy, self._agents.values())):
                self._turn()
        except Exception:
            _logger.exception("the agents of this worker are lost")
        finally:
            with self._lock:
                self._closed = True
            for agent in [*self._agents.values()]:
                self._give_up(agent, "this worker lets its agents go")
            while self._new:
                _fail(self._new.popleft()[1])

    def _turn(self) -> None:
        for key, events in self._selector.select(self._wait()):
            if key.fileobj is self._reader:
                self._reader.recv(4096)
            elif key.fileobj is self._broker:
                self._hear_broker()
            elif key.data.channel is key.fileobj:
                if events & selectors.EVENT_READ:
                    self._hear(key.data)
                if events & selectors.EVENT_WRITE and key.data.channel is not None:
                    self._write(key.data)
        while self._new:
            self._take(*self._new.popleft())
        self._end_overdue()
        self._place()

    def _wait(self) -> float | None:
        """Seconds until something is due, None when nothing is."""
        due = [self._retry_at] if self._without and self._has_room() else []
        for agent in self._agents.values():
            if agent.queue:
                due.append(agent.queue[0].deadline)
            if agent.waiting:
                due.append(next(iter(agent.waiting.values()))[1])
            elif not agent.queue:
                due.append(agent.idle_since + self._idle)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _has_room(self) -> bool:
        return len(self._agents) - len(self._without) < self._limit

    def _take(self, user: str, request: Request) -> None:
        agent = self._agents.get(user)
        if agent is None:
            if self._broken:
                _fail(request)
                return
            agent = self._agents[user] = _Agent(user, self.number())
            self._without.append(agent)
        self._agents.move_to_end(user)
        agent.queue.append(request)
        if agent.channel is not None:
            self._write(agent)

    def _place(self) -> None:
        """Ask for the agents that are missing, as far as there is room or room can be made."""
        while self._without and self._retry_at <= time.monotonic():
            if not self._has_room():
                idle = next(filter(_is_idle, self._agents.values()), None)
                if idle is None:
                    return
                self._remove(idle)
            agent = self._without.popleft()
            try:
                send(self._broker, b"ask %d %s" % (agent.number, agent.user.encode()))
            except BlockingIOError:
                self._without.appendleft(agent)
                self._retry_at = time.monotonic() + _RETRY
            except (OSError, UnicodeEncodeError) as error:
                self._give_up(agent, f"the broker cannot be asked: {error}")

    def _hear_broker(self) -> None:
        try:
            message, descriptors, _, _ = socket.recv_fds(
                self._broker, _LONGEST_ANSWER, 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not message:
            self._lose_broker()
            return
        words = message.split(b" ")
        channel = socket.socket(fileno=descriptors[0]) if descriptors else None
        agent = self._find(int(words[1]))
        if agent is None:
            # It was given up in the meantime.
            if channel is not None:
                channel.close()
        elif channel is not None:
            channel.setblocking(False)
            agent.channel = channel
            self._selector.register(channel, selectors.EVENT_READ, agent)
            self._write(agent)
        elif words[2] == b"busy":
            self._without.append(agent)
            self._retry_at = time.monotonic() + _RETRY
            idle = next(filter(_is_idle, self._agents.values()), None)
            if idle is not None:
                self._remove(idle)
        elif words[2] == b"unknown":
            self._give_up(agent, "the broker's directory has no such user")
        else:
            self._give_up(agent, "the broker starts no agent")

    def _find(self, number: int) -> _Agent | None:
        return next((each for each in self._agents.values() if each.number == number), None)

    def _lose_broker(self) -> None:
        _logger.error("the broker has ended: there will be no more agents")
        self._broken = True
        self._selector.unregister(self._broker)
        for agent in [each for each in self._agents.values() if each.channel is None]:
            self._give_up(agent, "the broker has ended")
        self._lost()

    def _write(self, agent: _Agent) -> None:
        channel = agent.channel
        assert channel is not None
        while agent.queue:
            request = agent.queue[0]
            last = request.sent == len(request.packets) - 1
            try:
                send(channel, request.packets[request.sent], request.descriptor if last else -1)
            except BlockingIOError:
                self._selector.modify(channel, selectors.EVENT_READ | selectors.EVENT_WRITE, agent)
                return
            except OSError as error:
                self._give_up(agent, f"the agent cannot be reached: {error}")
                return
            request.sent += 1
            if not last:
                continue
            agent.queue.popleft()
            _close(request)
            for number, due in request.due.items():
                agent.waiting[number] = (due, request.deadline)
            agent.unstored += len(request.due)
        self._selector.modify(channel, selectors.EVENT_READ, agent)

    def _hear(self, agent: _Agent) -> None:
        channel = agent.channel
        assert channel is not None
        try:
            packet = receive(channel)
            if packet is None:
                self._give_up(agent, "the agent has ended")
                return
            if packet.descriptor >= 0:
                os.close(packet.descriptor)
            if "log" in packet.fields:
                level = min(packet.number("log"), logging.ERROR)
                for line in packet.text("text").splitlines():
                    _logger.log(level, "agent of %a: %s", agent.user, _printable(line))
                return
            if "batch" in packet.fields:
                self._count(agent, packet.number("batch"), packet.number("microseconds"))
                return
            due, _ = agent.waiting.pop(packet.number("number"))
            reply = _read_reply(packet.fields.get("reply"))
        except BlockingIOError:
            return
        except KeyError:
            self._give_up(agent, "the agent answers what nobody asked")
            return
        except (OSError, PacketError, ValueError) as error:
            self._give_up(agent, f"the agent does not answer: {error}")
            return
        if not agent.waiting:
            agent.idle_since = time.monotonic()
        if due.report is not None:
            due.report(packet.fields.get("report"))
        due.reply.set_result(reply)

    def _count(self, agent: _Agent, copies: int, microseconds: int) -> None:
        """An agent has stored a batch. Raises ValueError for one that cannot be: nobody makes
        figures up."""
        if copies > agent.unstored or microseconds > self._timeout * 1_000_000:
            raise ValueError("a batch of copies that nobody wanted")
        agent.unstored -= copies
        if self._store is None:
            return
        waiting = sum(len(each.waiting) for each in self._agents.values())
        try:
            self._store.batch_taken(copies, waiting)
            self._store.batch_committed(copies, microseconds / 1_000_000)
        except Exception:
            _logger.exception("the observer of the store failed")

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for agent in [*self._agents.values()]:
            if agent.queue and agent.queue[0].deadline <= now:
                self._give_up(agent, "no agent could be reached in time")
            elif agent.waiting and next(iter(agent.waiting.values()))[1] <= now:
                self._give_up(agent, "the agent did not answer in time")
            elif _is_idle(agent) and agent.idle_since + self._idle <= now:
                self._remove(agent)

    def _give_up(self, agent: _Agent, why: str) -> None:
        """Fail all that was asked of this agent. The next request gets another."""
        if agent.queue or agent.waiting:
            _logger.error("mail for %a has to wait: %s", agent.user, why)
        self._remove(agent)
        for due, _ in agent.waiting.values():
            due.fail()
        for request in agent.queue:
            _fail(request)

    def _remove(self, agent: _Agent) -> None:
        self._agents.pop(agent.user, None)
        if agent in self._without:
            self._without.remove(agent)
        if agent.channel is None:
            return
        self._selector.unregister(agent.channel)
        agent.channel.close()
        agent.channel = None
        try:
            send(self._broker, b"end %d" % agent.number)
        except OSError:
            # The agent ends by itself, as its channel has; else it ends with this worker.
            pass


def _printable(text: str) -> str:
    """Without what could pass for a line of somebody else's."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _is_busy(agent: _Agent) -> bool:
    return bool(agent.queue or agent.waiting)


def _is_idle(agent: _Agent) -> bool:
    return agent.channel is not None and not _is_busy(agent)


def _fail(request: Request) -> None:
    _close(request)
    for due in request.due.values():
        due.fail()


def _close(request: Request) -> None:
    if request.descriptor >= 0:
        os.close(request.descriptor)
        request.descriptor = -1


def _read_reply(said: object) -> Reply:
    """The reply that an agent gave. Raises ValueError for what is none."""
    if not isinstance(said, list) or len(said) < 3:
        raise ValueError("no reply")
    code, *texts = said
    words = [text for text in texts if isinstance(text, str)]
    if not isinstance(code, int) or len(words) != len(texts) or code // 100 not in {2, 4, 5}:
        raise ValueError("no reply to a recipient")
    return Reply(code, *words[1:], enhanced=words[0])
