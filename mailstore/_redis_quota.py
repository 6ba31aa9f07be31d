"""Quotas that are counted in Redis or Valkey, for many machines over shared storage.

The invariant: whether a message fits is decided and counted in one step by the server, so however
many deliver at once, no limit is passed. A server that does not answer is QuotaUnavailable: nothing
is delivered uncounted, and nothing is refused for good.

The keys are those of Dovecot 2.3's `quota = dict:NAME::redis:host=...:prefix=...`, so its IMAP
server counts on the same: what it deletes makes room here.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ._quota import NothingReserved, QuotaPolicy, QuotaUnavailable, Reservation, Usage
from ._quota_warnings import WarningRunner

if TYPE_CHECKING:
    import redis

_logger: Final = logging.getLogger("mailstore")

# What both counters hold; nil where one of them is missing or is none. Numbers in Lua are exact up
# to 2^53.
_COUNTERS: Final = """
local function counter(key)
  local value = redis.call('GET', key)
  return value and #value <= 15 and string.match(value, '^%d+$') and tonumber(value)
end
local octets, messages = counter(KEYS[1]), counter(KEYS[2])
local there = octets and messages
"""

_LOOK: Final = f"{_COUNTERS} return there and {{octets, messages}} or {{}}"

# ARGV: size, then limit of octets, the same with the grace, limit of messages; 0 is no limit.
_RESERVE: Final = f"""
{_COUNTERS}
if not there then return {{}} end
local size, limit, with_grace, most = unpack(ARGV)
if most + 0 > 0 and messages + 1 > most + 0
    or limit + 0 > 0 and (octets > limit + 0 or octets + size > with_grace + 0) then
  return {{octets, messages, 0}}
end
redis.call('INCRBY', KEYS[1], size)
redis.call('INCR', KEYS[2])
return {{octets, messages, 1}}
"""

# ARGV: size.
_CANCEL: Final = f"""
{_COUNTERS}
if there and octets >= ARGV[1] + 0 and messages >= 1 then
  redis.call('DECRBY', KEYS[1], ARGV[1])
  redis.call('DECR', KEYS[2])
end
return {{}}
"""

# ARGV: what was counted. Others may have been faster, and have counted on.
_BEGIN: Final = f"""
{_COUNTERS}
if not there then
  redis.call('SET', KEYS[1], ARGV[1])
  redis.call('SET', KEYS[2], ARGV[2])
end
return {{}}
"""

# ARGV: what was counted, and the counters before. What was added meanwhile stays added: it may have
# been seen by the count as well, but must not be missed.
_RENEW: Final = f"""
{_COUNTERS}
local new_octets, new_messages = ARGV[1] + 0, ARGV[2] + 0
if there then
  new_octets = new_octets + math.max(0, octets - ARGV[3])
  new_messages = new_messages + math.max(0, messages - ARGV[4])
end
redis.call('SET', KEYS[1], string.format('%.0f', new_octets))
redis.call('SET', KEYS[2], string.format('%.0f', new_messages))
return {{new_octets, new_messages}}
"""


class RedisQuotas:
    """The quotas of users in the Redis or Valkey server at `url` (`redis://HOST:PORT/DB`,
    `rediss://` with TLS, `unix://PATH`; extra `redis`).

    The keys of a user are `PREFIXUSER/quota/storage` and `PREFIXUSER/quota/messages`. `timeout`
    bounds, in seconds, connecting and each answer. Raises ImportError without the extra and
    ValueError for a URL of another kind; the server is not asked yet. May be used by several
    threads and across fork(2).
    """

    def __init__(self, url: str, *, prefix: str = "", timeout: float = 5.0) -> None:
        # Takes most of a second to import: only for those who use it.
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._prefix = prefix
        self._warnings = WarningRunner()
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # A step that was lost on its way back must not be counted twice.
            retry=Retry(NoBackoff(), 0),
        )
        self._failure: type[Exception] = redis.RedisError

    def of(self, user: str, policy: QuotaPolicy, count: Callable[[], Usage]) -> "RedisQuota":
        """The quota of `user`. `count` counts all that is there, such as `MaildirQuota.count`: for
        a user without counters, and to count anew. It may raise OSError."""
        keys = [f"{self._prefix}{user}/quota/{name}" for name in ("storage", "messages")]
        return RedisQuota(self._run, keys, policy, count, self._warnings)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _run(self, script: str, keys: list[str], *arguments: int) -> list[int]:
        try:
            values = self._scripts(script)(keys=keys, args=list(arguments))
        except self._failure as error:
            raise QuotaUnavailable(f"the quota counter is not available: {error}") from error
        return [int(value) for value in values]

    def _scripts(self, script: str) -> "redis.commands.core.Script":
        return self._client.register_script(script)


class RedisQuota:
    """The quota of one user (a `Quota`); `RedisQuotas.of` makes it.

    A message that a process had reserved room for when it was killed stays counted, as does one
    whose answer was lost, until `recalculate`.
    """

    __slots__ = ("_count", "_keys", "_policy", "_run", "_warnings")

    def __init__(
        self,
        run: Callable[..., list[int]],
        keys: list[str],
        policy: QuotaPolicy,
        count: Callable[[], Usage],
        warnings: WarningRunner,
    ) -> None:
        self._run = run
        self._keys = keys
        self._policy = policy
        self._count = count
        self._warnings = warnings

    @property
    def mailbox_count(self) -> int:
        """How many mailboxes the user may have before a message makes no more; 0 for any number."""
        return self._policy.mailbox_count

    def check(self, size: int, *, folder: str = "INBOX") -> None:
        """Raise QuotaExceeded where a message of `size` octets (0 where that is not known) has no
        room now. Raises OSError."""
        self._policy.check_size(size)
        limits = self._policy.rules.limits(folder)
        if limits is not None and not self._policy.has_room(limits, self.usage(), size):
            raise self._policy.exceeded()

    def reserve(self, size: int, *, folder: str = "INBOX", enforced: bool = True) -> Reservation:
        """Hold room for a message of `size` octets on disk. Raises QuotaExceeded if there is none
        and `enforced` is set, and OSError."""
        if enforced:
            self._policy.check_size(size)
        limits = self._policy.rules.limits(folder)
        if limits is None:
            return NothingReserved()
        bounds = (0, 0, 0)
        if enforced:
            bounds = (limits.octets, limits.octets + self._policy.room_beyond, limits.messages)
        octets, messages, fits = self._ask(_RESERVE, size, *bounds)
        if not fits:
            raise self._policy.exceeded()
        return _Room(self, size, Usage(octets, messages))

    def usage(self) -> Usage:
        """What is counted; counts first where nothing is. Raises OSError."""
        return Usage(*self._ask(_LOOK))

    def recalculate(self) -> Usage:
        """Count all that is there, and keep that. Raises OSError."""
        before = self.usage()
        counted = self._count()
        after = Usage(
            *self._run(
                _RENEW,
                self._keys,
                *(counted.octets, counted.messages, before.octets, before.messages),
            )
        )
        self._warn(before, after)
        return after

    def stored(self, size: int, before: Usage) -> None:
        """A message for which room was held is there, and was counted. Never raises."""
        self._warn(before, Usage(before.octets + size, before.messages + 1))

    def drop(self, size: int) -> None:
        """A message for which room was held did not come. Never raises."""
        try:
            self._run(_CANCEL, self._keys, size)
        except OSError as error:
            _logger.error("%a counts a message that did not come: %s", self._keys[0], error)

    def _ask(self, script: str, *arguments: int) -> list[int]:
        """What the script says; where there are no counters, after they were made."""
        answer = self._run(script, self._keys, *arguments)
        if not answer:
            counted = self._count()
            self._run(_BEGIN, self._keys, counted.octets, counted.messages)
            answer = self._run(script, self._keys, *arguments)
        if not answer:
            raise QuotaUnavailable(f"the quota counter {self._keys[0]!a} does not last")
        return answer

    def _warn(self, before: Usage, after: Usage) -> None:
        warning = self._policy.warning(before, after)
        if warning is not None:
            self._warnings.run(warning.command)


class _Room:
    """Room held for one message (a `Reservation`)."""

    __slots__ = ("_before", "_quota", "_size")

    def __init__(self, quota: RedisQuota, size: int, before: Usage) -> None:
        self._quota = quota
        self._size = size
        self._before = before

    def commit(self) -> None:
        """The message was stored."""
        self._quota.stored(self._size, self._before)

    def cancel(self) -> None:
        """It was not."""
        self._quota.drop(self._size)
