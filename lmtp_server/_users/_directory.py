"""Several drivers, asked in their order, as one directory.

The invariant: a user does not exist only if every driver that was asked said so and none failed,
or if a rule says that this is to count: one that failed might have known the user.
"""

import enum
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ._entry import DirectoryError, Driver, Fields, NotFound, UserEntry, make_entry
from ._variables import Names, Text

_logger: Final = logging.getLogger("lmtp_server")
_PATHS: Final = frozenset({"home", "mail"})
_NO_TEXTS: Final[Mapping[str, Text]] = MappingProxyType({})


class Rule(enum.StrEnum):
    """What follows from a driver's answer, as in Dovecot. "ok" and "fail" set what is told in the
    end; without them it stays what it was, which is "fail" in the beginning."""

    RETURN_OK = "return-ok"
    RETURN_FAIL = "return-fail"
    RETURN = "return"
    CONTINUE_OK = "continue-ok"
    CONTINUE_FAIL = "continue-fail"
    CONTINUE = "continue"


class Skip(enum.StrEnum):
    """When a driver is not asked, as in Dovecot."""

    NEVER = "never"
    FOUND = "found"
    NOTFOUND = "notfound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Userdb:
    """A driver in its place. `default_fields` are there before it is asked, `override_fields` count
    more than what it says."""

    name: str
    """For the log."""
    driver: Driver
    default_fields: Mapping[str, Text] = field(default_factory=lambda: _NO_TEXTS)
    override_fields: Mapping[str, Text] = field(default_factory=lambda: _NO_TEXTS)
    skip: Skip = Skip.NEVER
    result_success: Rule = Rule.RETURN_OK
    result_failure: Rule = Rule.CONTINUE
    result_internalfail: Rule = Rule.CONTINUE


class _NotNowError(Exception):
    """It takes a lookup that may block."""


class Directory:
    """All users, as `userdbs` know them.

    `defaults` are fields that every user has who is not given others.
    """

    def __init__(
        self, userdbs: Sequence[Userdb], *, defaults: Fields = MappingProxyType({})
    ) -> None:
        self._userdbs = tuple(userdbs)
        self._defaults = defaults
        self.constant: Final = all(
            userdb.driver.constant
            and "home" not in {**userdb.default_fields, **userdb.override_fields}
            for userdb in self._userdbs
        )
        """Whether what `recall` says of a user never changes, and has nothing to be looked at."""

    def recall(self, user: str) -> UserEntry | NotFound | None:
        """What can be said without blocking; None if it takes `lookup`. Raises DirectoryError."""
        try:
            return self._find(user, _recall)
        except _NotNowError:
            return None

    def lookup(self, user: str) -> UserEntry | NotFound:
        """What the drivers say; may block. Raises DirectoryError."""
        return self._find(user, _lookup)

    def _find(
        self, user: str, ask: Callable[[Driver, str], Fields | NotFound]
    ) -> UserEntry | NotFound:
        fields = dict(self._defaults)
        found = False
        error: DirectoryError | None = None
        for userdb in self._userdbs:
            if userdb.skip is (Skip.FOUND if found else Skip.NOTFOUND):
                continue
            try:
                answer = ask(userdb.driver, user)
            except _NotNowError:
                raise
            except DirectoryError as failure:
                error, rule = failure, userdb.result_internalfail
                _tell(userdb, user, failure)
            except Exception as failure:
                error, rule = DirectoryError(str(failure)), userdb.result_internalfail
                _logger.exception("userdb %s failed for %a", userdb.name, user)
            else:
                if isinstance(answer, NotFound):
                    rule = userdb.result_failure
                else:
                    rule = userdb.result_success
                    fields |= _expand(userdb, userdb.default_fields, user)
                    fields |= answer
                    fields |= _expand(userdb, userdb.override_fields, user)
            found = {"ok": True, "fail": False}.get(rule.partition("-")[2], found)
            if rule.startswith("return"):
                break
        if found:
            return make_entry(user, fields)
        if error is not None:
            raise DirectoryError("a userdb failed")
        return NotFound(user)


def _recall(driver: Driver, user: str) -> Fields | NotFound:
    found = driver.recall(user)
    if found is None:
        raise _NotNowError
    return found


def _lookup(driver: Driver, user: str) -> Fields | NotFound:
    return driver.lookup(user)


def _tell(userdb: Userdb, user: str, error: DirectoryError) -> None:
    _logger.error("userdb %s failed for %a: %s", userdb.name, user, error)


def _expand(userdb: Userdb, texts: Mapping[str, Text], user: str) -> dict[str, str]:
    if not texts:
        return {}
    names = Names.of(user)
    try:
        if not _PATHS.isdisjoint(texts):
            names.check()
        return {key: text.expand(names) for key, text in texts.items()}
    except ValueError as error:
        raise DirectoryError(f"{userdb.name}: a field cannot be filled: {error}") from None
