"""Quota rules in the syntax of Dovecot 2.3, and the limits that follow from them.

The invariant: rules that could be read are never without meaning: a limit is a whole number of
octets or messages, and a rule that would take a limit away, or that asks to trust the mailbox's
owner, is refused when it is read.
"""

import re
from dataclasses import dataclass
from typing import Final

_AMOUNT: Final = re.compile(r"([+-]?)([0-9]{1,19})([BKMGT%]?)", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LARGEST: Final = (1 << 63) - 1

# Key of a limit: what it limits, and what a number without a unit counts.
_KEYS: Final = {"storage": (True, 1024), "bytes": (True, 1), "messages": (False, 1)}


@dataclass(frozen=True, slots=True)
class Amount:
    """Octets or messages, or a percentage of the limit that holds for all folders."""

    value: int
    percent: bool = False

    def of(self, whole: int) -> int:
        """The amount, where `whole` is the limit for all folders."""
        return whole * self.value // 100 if self.percent else self.value


@dataclass(frozen=True, slots=True)
class Limits:
    """What all folders together may hold; 0 is no limit."""

    octets: int = 0
    messages: int = 0


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a definition such as `storage=95%:messages=900` names; None where it does not."""

    octets: Amount | None = None
    messages: Amount | None = None


@dataclass(frozen=True, slots=True)
class _Rule:
    mask: str
    extra: Thresholds
    ignored: bool


class QuotaRules:
    """The limits of one user, from rules such as `*:storage=1G:messages=1000`.

    `*` gives the limits for all folders together. A rule for a folder (`Trash:storage=+10%`) says
    how much more or, with `-`, less there may be in all for a message to go into that folder; a
    number without a sign is one with `+`. `Spam:ignore` leaves a folder out: it is neither counted
    nor limited. The name of a folder may have the wildcards `*` and `?`; the first rule that fits
    holds, and a second one for the same name adds to the first. Units are B, K, M, G and T, each
    1024 times the one before, and `%` of the limit for all folders; without a unit `storage`
    counts in K, `bytes` and `messages` in ones. 0 is no limit. Raises ValueError.

    The syntax and the meaning are those of Dovecot 2.3's `quota_rule`, but for: `?:`, which takes
    the limits from the file, is refused, since the file is the user's; so are a rule that leaves no
    room at all, which Dovecot takes for no limit, and numbers beyond 63 bits; a rule for a folder
    makes no limit where there is none for all folders; `-50%` is less, not more.
    """

    __slots__ = ("_rules", "default")

    def __init__(self, *definitions: str) -> None:
        everything = Thresholds()
        rules: dict[str, _Rule] = {}
        for definition in definitions:
            mask, colon, text = definition.partition(":")
            if not colon or not mask:
                raise ValueError(f"the quota rule {definition!a} is not FOLDER:LIMITS")
            if mask == "?":
                raise ValueError(
                    f"the quota rule {definition!a} would trust the limits in a file of the user's:"
                    " write '*' for '?'"
                )
            if mask == "*":
                everything = _merged(everything, _limits(text, definition, signed=False))
                continue
            mask = _folder(mask)
            rule = rules.get(mask, _Rule(mask, Thresholds(), ignored=False))
            if text == "ignore":
                rules[mask] = _Rule(mask, rule.extra, ignored=True)
            else:
                extra = _merged(rule.extra, _limits(text, definition, signed=True))
                rules[mask] = _Rule(mask, extra, rule.ignored)
        self.default: Final = Limits(
            everything.octets.value if everything.octets else 0,
            everything.messages.value if everything.messages else 0,
        )
        """The limits for all folders together."""
        self._rules: Final = tuple(rules.values())
        for rule in self._rules:
            for extra_amount, limit in (
                (rule.extra.octets, self.default.octets),
                (rule.extra.messages, self.default.messages),
            ):
                if limit and extra_amount and limit + extra_amount.of(limit) <= 0:
                    raise ValueError(f"the quota rule for {rule.mask!a} leaves no room at all")

    def limits(self, folder: str = "INBOX") -> Limits | None:
        """What there may be in all for a message to go into `folder`; None for one left out."""
        rule = self._find(folder)
        if rule is None:
            return self.default
        if rule.ignored:
            return None
        return Limits(
            _raised(self.default.octets, rule.extra.octets),
            _raised(self.default.messages, rule.extra.messages),
        )

    def counts(self, folder: str) -> bool:
        """Whether what lies in `folder` counts."""
        rule = self._find(folder)
        return rule is None or not rule.ignored

    def _find(self, folder: str) -> _Rule | None:
        if not self._rules:
            return None
        name = _folder(folder)
        return next((rule for rule in self._rules if _matches(name, rule.mask)), None)


def read_thresholds(text: str) -> Thresholds:
    """Limits such as `storage=95%:messages=900`, without a folder and without signs. ValueError."""
    return _limits(text, text, signed=False, percent=True)


def read_amount(text: str) -> Amount:
    """A number of octets with or without a unit, or a percentage; not negative. ValueError."""
    return _amount(text, 1, text, signed=False, percent=True)


def _limits(text: str, definition: str, *, signed: bool, percent: bool = False) -> Thresholds:
    octets = messages = None
    for part in text.split(":"):
        key, _, value = part.partition("=")
        if key not in _KEYS:
            raise ValueError(
                f"{key!a} in the quota rule {definition!a} is none of storage, bytes, messages and,"
                " alone, ignore"
            )
        of_octets, unit = _KEYS[key]
        amount = _amount(value, unit, definition, signed=signed, percent=percent or signed)
        if of_octets:
            octets = amount
        else:
            messages = amount
    return Thresholds(octets, messages)


def _amount(text: str, unit: int, definition: str, *, signed: bool, percent: bool) -> Amount:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!a} in the quota rule {definition!a} is not a number with one of the units"
            " B, K, M, G, T, %"
        )
    sign, digits, suffix = match.groups()
    if sign and not signed:
        raise ValueError(f"{text!a} in the quota rule {definition!a} must not have a sign")
    value = int(digits)
    if suffix == "%":
        if not percent:
            raise ValueError(
                f"{text!a} in the quota rule {definition!a} is a percentage of nothing:"
                " it is itself the limit for all folders"
            )
    else:
        value *= _UNITS[suffix.upper()] if suffix else unit
    if value > _LARGEST:
        raise ValueError(f"{text!a} in the quota rule {definition!a} is too large")
    return Amount(-value if sign == "-" else value, suffix == "%")


def _merged(first: Thresholds, second: Thresholds) -> Thresholds:
    return Thresholds(second.octets or first.octets, second.messages or first.messages)


def _raised(limit: int, extra: Amount | None) -> int:
    return limit + extra.of(limit) if limit and extra is not None else limit


def _folder(name: str) -> str:
    # RFC 3501 5.1: INBOX is the one name that knows no case.
    return "INBOX" if name.upper() == "INBOX" else name


def _matches(name: str, mask: str) -> bool:
    """Whether `name` fits `mask`, in which "*" stands for any text and "?" for one character."""
    at = 0
    after_star: tuple[int, int] | None = None
    position = 0
    while position < len(name):
        if at < len(mask) and mask[at] == "*":
            after_star = (at + 1, position)
            at += 1
        elif at < len(mask) and mask[at] in {"?", name[position]}:
            at += 1
            position += 1
        elif after_star is not None:
            # Let the last star stand for one character more.
            at, position = after_star[0], after_star[1] + 1
            after_star = (at, position)
        else:
            return False
    return not mask[at:].strip("*")
