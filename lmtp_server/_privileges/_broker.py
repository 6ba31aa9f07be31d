"""The broker: the one process that stays root, and starts a user's agent when a worker asks.

It has no descriptor but its channels, can make no socket but UNIX ones, and knows two requests. A
worker sends `ask NUMBER NAME` and `end NUMBER`; it is answered `agent NUMBER`, with the channel to
the agent, or `refused NUMBER WHY`, where WHY is `unknown`, `busy` or `failed`. The number is the
worker's own. The supervisor sends `worker`, with the channel of a new worker, and `reload`.

The invariant: an agent is started only for a user whom the broker's own directory knows, with the
ids that this gives and that are allowed. Nothing that a worker sends is an id, a path or more than
a name to look up, and one that sends anything else is not heard again.
"""

import array
import gc
import logging
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn

from ._agent import AgentOptions, run_agent
from ._descriptors import keep_only, network_descriptors
from ._drop import open_proc, read_status
from ._identity import PrivilegesError, ValidIds
from ._kernel import (
    Capability,
    clear_bounding_set,
    forbid_new_privileges,
    hide_memory,
    set_capabilities,
)
from ._packets import channel_pair, send
from ._preload import preload
from ._seccomp import Confinement, confine
from ._user import Lookup, MailUser

_logger: Final = logging.getLogger("lmtp_server")

# `ask`, a number and a name.
_LONGEST_REQUEST: Final = 512
_LONGEST_NUMBER: Final = 10
# Seconds that the supervisor waits for it.
_RELOADING: Final = 5.0
_CAPABILITIES: Final = frozenset(Capability) - {Capability.NET_BIND_SERVICE}
_NEEDED: Final = {Capability.SETGID, Capability.SETUID, Capability.SETPCAP, Capability.KILL}
# The signals that tell a supervisor and its workers what to do: the broker and the agents end when
# their channels do.
_NOT_HEARD: Final = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """What a broker allows."""

    agent: AgentOptions
    valid_ids: ValidIds = field(default_factory=ValidIds)
    confinement: Confinement = field(default_factory=Confinement)
    """What broker and agents may do; running programs is for agents with quota warnings."""
    most_agents: int = 256
    """Agents at a time, of all workers together. With less than the limits of all their pools
    together one worker may have to wait for another's idle agents to end."""
    log_descriptors: Sequence[int] = ()
    """What the broker, not the agents, keeps open beside standard error."""
    grace: float = 30.0
    """Seconds that an agent may take to end once its worker has no more use for it."""


Reload = Callable[[], tuple[Lookup, AgentOptions]]
"""Reads anew who the users are, and what the agents that are started from then on have."""


@dataclass(slots=True)
class _Agent:
    """An agent that was started. `kill_at` is set when it is to end."""

    pid: int
    user: str
    channel: socket.socket | None
    number: int
    kill_at: float | None = None


class Broker:
    """The broker's side of `control`, the channel to the supervisor.

    `lookup` is the directory; `reload`, if there is one, makes it anew, and the options of agents.
    """

    def __init__(
        self,
        control: socket.socket,
        lookup: Lookup,
        options: BrokerOptions,
        reload: Reload | None = None,
    ) -> None:
        self._control = control
        self._lookup = lookup
        self._options = options
        self._reload = reload
        self._agents: dict[int, _Agent] = {}
        self._selector = selectors.DefaultSelector()
        self._stopping = False

    def run(self) -> None:
        """Serve until the supervisor and all workers have gone and no agent is left.

        To be called in a process of root's that was forked for this. Raises PrivilegesError where
        it would have more than it should.
        """
        wake_up = self._seclude()
        self._selector.register(wake_up, selectors.EVENT_READ)
        self._selector.register(self._control, selectors.EVENT_READ, self._hear_supervisor)
        while not self._stopping or self._agents or len(self._selector.get_map()) > 1:
            for key, _ in self._selector.select(self._timeout()):
                if key.data is None:
                    wake_up.recv(4096)
                else:
                    key.data(key.fileobj)
            self._reap()
            self._kill_overdue()

    def _seclude(self) -> socket.socket:
        """Give up all that a broker does not need; a socket that SIGCHLD makes readable."""
        for number in _NOT_HEARD:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._selector.close()
        keep_only({2, self._control.fileno(), *self._options.log_descriptors})
        if network_descriptors():
            raise PrivilegesError("the broker has a socket of the network")
        self._selector = selectors.DefaultSelector()
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        hide_memory()
        forbid_new_privileges()
        kept = _capabilities()
        clear_bounding_set(kept)
        set_capabilities(kept)
        confine(self._options.confinement)
        self._check_threads()
        # What is here now stays, in the agents as well.
        gc.freeze()
        return reader

    def _check_threads(self) -> None:
        """Raise PrivilegesError if there are threads: a fork would leave their locks behind."""
        if threading.active_count() > 1:
            raise PrivilegesError("the broker has threads and cannot start agents")

    def _timeout(self) -> float | None:
        due = [agent.kill_at for agent in self._agents.values() if agent.kill_at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _hear_supervisor(self, control: socket.socket) -> None:
        message, control_data, _, _ = control.recvmsg(
            _LONGEST_REQUEST, socket.CMSG_LEN(4), socket.MSG_CMSG_CLOEXEC
        )
        descriptors = array.array("i")
        for level, kind, value in control_data:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(value)
        if message == b"worker" and len(descriptors) == 1:
            channel = socket.socket(fileno=descriptors[0])
            # Nobody is waited for.
            channel.setblocking(False)
            self._selector.register(channel, selectors.EVENT_READ, self._hear_worker)
        elif message == b"reload" and self._reload is not None:
            try:
                self._lookup, agent = self._reload()
            except Exception as error:
                _logger.error("the broker keeps the settings it had: %s", error)
            else:
                self._options = replace(self._options, agent=agent)
            # The supervisor waits for it, unless it has ended.
            with suppress(OSError):
                send(control, b"reloaded")
        elif not message:
            self._selector.unregister(control)
            control.close()
            self._stopping = True

    def _hear_worker(self, channel: socket.socket) -> None:
        try:
            # There is no room for descriptors: the kernel closes what comes along. The channel
            # may have been closed in the same round, and this fails.
            message, _, flags, _ = channel.recvmsg(_LONGEST_REQUEST, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            message, flags = b"", 0
        if not message:
            self._forget(channel)
            return
        verb, _, rest = message.partition(b" ")
        number, _, name = rest.partition(b" ")
        whole = not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        if not whole or not number.isdigit() or len(number) > _LONGEST_NUMBER:
            self._give_up(channel)
        elif verb == b"ask" and name:
            self._ask(channel, int(number), name)
        elif verb == b"end" and not name:
            self._end(channel, int(number))
        else:
            self._give_up(channel)

    def _give_up(self, channel: socket.socket) -> None:
        _logger.error("a worker has sent the broker what no worker sends: it is not heard again")
        self._forget(channel)

    def _forget(self, channel: socket.socket) -> None:
        """A worker has gone; its agents finish what they have."""
        if channel.fileno() < 0:
            return
        self._selector.unregister(channel)
        channel.close()
        for agent in self._agents.values():
            if agent.channel is channel:
                agent.channel = None
                self._let_end(agent)

    def _ask(self, channel: socket.socket, number: int, name: bytes) -> None:
        try:
            user = self._find(name)
        except Exception as error:
            _logger.error("no agent for %a: %s", name.decode("utf-8", "replace"), error)
            self._say(channel, b"refused %d failed" % number)
            return
        if user is None:
            self._say(channel, b"refused %d unknown" % number)
        elif len(self._agents) >= self._options.most_agents:
            self._say(channel, b"refused %d busy" % number)
        else:
            self._start(channel, number, user)

    def _find(self, name: bytes) -> MailUser | None:
        """The user of that name, with ids that are allowed; None where there is none."""
        text = name.decode("utf-8")
        if not text.isprintable() or "/" in text or text in {".", ".."}:
            return None
        user = self._lookup(text)
        if user is None:
            return None
        identity = self._options.valid_ids.check(user.identity)
        return MailUser(
            name=user.name,
            identity=identity,
            home=user.home,
            mail=user.mail,
            quota=user.quota,
            chroot=user.chroot,
        )

    def _start(self, channel: socket.socket, number: int, user: MailUser) -> None:
        try:
            self._check_threads()
            ours, its = channel_pair()
            with ours, its:
                pid = os.fork()
                if pid == 0:
                    self._become_agent(its, user)
                self._agents[pid] = _Agent(pid, user.name, channel, number)
                its.close()
                self._say(channel, b"agent %d" % number, ours.fileno())
        except (OSError, PrivilegesError) as error:
            _logger.error("no agent for %a can be started: %s", user.name, error)
            self._say(channel, b"refused %d failed" % number)

    def _become_agent(self, channel: socket.socket, user: MailUser) -> NoReturn:
        status = os.EX_SOFTWARE
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            options = self._options.agent
            # Whom else there is, is none of this user's business.
            del self._lookup, self._reload
            run_agent(channel, user, options)
            status = os.EX_OK
        except Exception as error:
            _logger.error("the agent of %a ends: %s", user.name, error)
        finally:
            # The rest of the stack belongs to the broker.
            os._exit(status)

    def _say(self, channel: socket.socket, message: bytes, descriptor: int = -1) -> None:
        try:
            send(channel, message, descriptor)
        except OSError:
            # It has gone, or does not read: its end of the channel tells, or it has to.
            self._forget(channel)

    def _end(self, channel: socket.socket, number: int) -> None:
        for agent in self._agents.values():
            if agent.channel is channel and agent.number == number:
                self._let_end(agent)

    def _let_end(self, agent: _Agent) -> None:
        if agent.kill_at is None:
            agent.kill_at = time.monotonic() + self._options.grace

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for agent in self._agents.values():
            if agent.kill_at is not None and agent.kill_at <= now:
                _logger.error("agent %d of %a does not end: it is killed", agent.pid, agent.user)
                # It is this process's child and not reaped yet: the number is its own.
                os.kill(agent.pid, signal.SIGKILL)
                agent.kill_at = now + self._options.grace

    def _reap(self) -> None:
        while self._agents:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            agent = self._agents.pop(pid, None)
            code = os.waitstatus_to_exitcode(status)
            if agent is not None and code < 0:
                name = signal.Signals(-code).name
                _logger.error("agent %d of %a was ended by %s", pid, agent.user, name)


def _capabilities() -> frozenset[int]:
    """The capabilities that a broker keeps. Raises PrivilegesError if it lacks one it needs."""
    proc = open_proc()
    try:
        held = int(read_status(proc)["CapPrm"][0], 16)
    finally:
        os.close(proc)
    lacking = [number.name for number in sorted(_NEEDED) if not held >> number & 1]
    if lacking:
        raise PrivilegesError(f"the broker needs the capabilities {', '.join(lacking)}")
    return frozenset(number for number in _CAPABILITIES if held >> number & 1)


@dataclass(frozen=True, slots=True)
class BrokerProcess:
    """A broker that runs, for the process that has started it."""

    pid: int
    control: socket.socket
    """At its end when the broker has died. An answer that comes too late may be there."""

    def channel(self) -> socket.socket:
        """The end of a new channel to the broker, for a worker. Raises OSError."""
        ours, its = channel_pair()
        with its:
            send(self.control, b"worker", its.fileno())
        return ours

    def reload(self) -> None:
        """Have the broker make its directory and agents' options anew. Raises OSError; TimeoutError
        when that takes too long: it is done later then."""
        send(self.control, b"reload")
        self.control.settimeout(_RELOADING)
        try:
            # Its end, too, is no answer, and stays there for whoever looks after it.
            self.control.recv(_LONGEST_REQUEST)
        finally:
            self.control.settimeout(None)

    def close(self) -> None:
        """Let the broker end once the workers and the agents have."""
        self.control.close()

    def wait(self) -> None:
        """Let it end, and wait for that; for the process whose child it is."""
        self.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            # Whoever has waited for any child has had this one.
            pass


def start_broker(
    lookup: Lookup, options: BrokerOptions, *, reload: Reload | None = None
) -> BrokerProcess:
    """Fork the broker. The caller is root, has one thread, and drops its privileges next.

    Raises PrivilegesError and OSError.
    """
    proc = open_proc()
    try:
        status = read_status(proc)
    finally:
        os.close(proc)
    if status["Threads"] != ["1"] or os.geteuid() != 0:
        raise PrivilegesError("a broker is forked by root, from a process with one thread")
    preload()
    ours, its = channel_pair()
    try:
        pid = os.fork()
        if pid == 0:
            _become_broker(its, lookup, options, reload)
    except BaseException:
        ours.close()
        raise
    finally:
        its.close()
    return BrokerProcess(pid, ours)


def _become_broker(
    control: socket.socket,
    lookup: Lookup,
    options: BrokerOptions,
    reload: Reload | None,
) -> NoReturn:
    status = os.EX_SOFTWARE
    try:
        Broker(control, lookup, options, reload).run()
        status = os.EX_OK
    except BaseException:
        _logger.exception("the broker ends")
    finally:
        os._exit(status)
