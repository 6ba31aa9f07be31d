"""The parameters of MAIL and RCPT, typed, as they are read and as they are written.

A keyword that no enabled extension defines is refused with 555 (RFC 5321 4.1.1.11), a value its
extension does not allow with 501. What is written is what a server of all extensions would read.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, NamedTuple, TypedDict, TypeVar

from ._address import Address, parse_mailbox
from ._errors import LocalProtocolError
from ._extensions import Extension
from ._reply import Reply
from ._xtext import (
    decode_fields,
    decode_unitext,
    decode_xtext,
    encode_fields,
    encode_unitext,
    encode_xtext,
)


class Body(Enum):
    """The BODY parameter of MAIL (RFC 6152 2, RFC 3030 3)."""

    SEVENBIT = "7BIT"
    EIGHTBITMIME = "8BITMIME"
    BINARYMIME = "BINARYMIME"
    """The content comes by BDAT alone."""


class Ret(Enum):
    """How much of the message a notification of failure brings back (RFC 3461 4.3)."""

    FULL = "FULL"
    HDRS = "HDRS"
    """The header section."""


class Notify(Enum):
    """When a recipient's sender wants a notification (RFC 3461 4.1)."""

    NEVER = "NEVER"
    """Stands alone."""
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


class ByMode(Enum):
    """What is done when the time to deliver by is over (RFC 2852 4)."""

    NOTIFY = "N"
    """The sender is told; delivery goes on."""
    RETURN = "R"
    """The message goes back."""


class DeliverBy(NamedTuple):
    """The BY parameter of MAIL (RFC 2852 4)."""

    seconds: int
    """How long delivery may take, at most nine digits; over when 0 or less, never with RETURN."""
    mode: ByMode
    trace: bool = False
    """Whether relays tell the sender that they passed the message on."""


class Submitter(NamedTuple):
    """The AUTH parameter of MAIL: who submitted the message, says the client (RFC 4954 5)."""

    mailbox: Address | None
    """None is `<>`: not known, or not to be trusted."""


class OriginalRecipient(NamedTuple):
    """The ORCPT parameter of RCPT (RFC 3461 4.2, RFC 6533 3)."""

    addr_type: str
    """`rfc822`, `utf-8` or another, as it was written; case means nothing."""
    address: str
    """The decoded address: printable ASCII; with the type `utf-8` beyond ASCII too."""


class RrvsAction(Enum):
    """What a relay does that cannot pass RRVS on (RFC 7293)."""

    CONTINUE = "C"
    REJECT = "R"


class ValidSince(NamedTuple):
    """The RRVS parameter of RCPT (RFC 7293)."""

    since: datetime
    """The mailbox must have had its owner since then; in UTC."""
    action: RrvsAction | None = None
    """None when not given."""


@dataclass(slots=True, init=False, unsafe_hash=True, kw_only=True)
class MailParameters:
    """What MAIL said beside the reverse-path; None or False when not given."""

    size: Final[int | None]
    """SIZE: the declared size of the content in octets (RFC 1870 4)."""
    body: Final[Body | None]
    """BODY (RFC 6152 2)."""
    smtputf8: Final[bool]
    """SMTPUTF8: paths and header fields may go beyond ASCII (RFC 6531 3.4)."""
    ret: Final[Ret | None]
    """RET (RFC 3461 4.3)."""
    envid: Final[str | None]
    """ENVID: the sender's name for the envelope, decoded; printable ASCII (RFC 3461 4.4)."""
    auth: Final[Submitter | None]
    """AUTH (RFC 4954 5)."""
    require_tls: Final[bool]
    """REQUIRETLS: the message must not travel without TLS (RFC 8689 2)."""
    mt_priority: Final[int | None]
    """MT-PRIORITY: -9 to 9, the most urgent (RFC 6710 4)."""
    deliver_by: Final[DeliverBy | None]
    """BY (RFC 2852 4)."""
    hold: Final[int | datetime | None]
    """HOLDFOR: how many seconds the message is held, at most nine digits; or HOLDUNTIL: the time
    until which it is held, in UTC (RFC 4865)."""

    def __init__(
        self,
        *,
        size: int | None = None,
        body: Body | None = None,
        smtputf8: bool = False,
        ret: Ret | None = None,
        envid: str | None = None,
        auth: Submitter | None = None,
        require_tls: bool = False,
        mt_priority: int | None = None,
        deliver_by: DeliverBy | None = None,
        hold: int | datetime | None = None,
    ) -> None:
        self.size = size
        self.body = body
        self.smtputf8 = smtputf8
        self.ret = ret
        self.envid = envid
        self.auth = auth
        self.require_tls = require_tls
        self.mt_priority = mt_priority
        self.deliver_by = deliver_by
        self.hold = hold


@dataclass(frozen=True, slots=True, kw_only=True)
class RcptParameters:
    """What RCPT said beside the forward-path; None or False when not given."""

    notify: frozenset[Notify] | None = None
    """NOTIFY (RFC 3461 4.1)."""
    orcpt: OriginalRecipient | None = None
    """ORCPT (RFC 3461 4.2)."""
    rrvs: ValidSince | None = None
    """RRVS (RFC 7293)."""
    ignore_quota: bool = False
    """IGNOREQUOTA: the recipient's quota does not count (Cyrus)."""
    forward: Mapping[str, str] | None = field(default=None, hash=False)
    """XRCPTFORWARD: fields of a proxy's user look-up (Dovecot). Keys are not empty and have no "=";
    keys and values may have any other character."""


NO_MAIL_PARAMETERS: Final = MailParameters()
NO_RCPT_PARAMETERS: Final = RcptParameters()


class ParameterError(ValueError):
    """A parameter that cannot be taken; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


# RFC 5321 4.1.2: esmtp-keyword ["=" esmtp-value], the value of any printable but "=" and SP.
_PARAMETER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=\x7f]+))?")
# RFC 1870 4: 1*20DIGIT.
_SIZE: Final = re.compile(r"[0-9]{1,20}")
# RFC 4865.
_SECONDS: Final = re.compile(r"[0-9]{1,9}")
# RFC 6710 4: 0 has no sign, and no number a leading 0 or a plus.
_PRIORITY: Final = re.compile(r"0|-?[1-9]")
# RFC 2852 4.
_BY: Final = re.compile(r"([+-]?[0-9]{1,9});([NR])(T?)", re.IGNORECASE | re.ASCII)
# RFC 3461 4.2: addr-type is an atom; "=" is not of the value.
_ORCPT: Final = re.compile(r"([A-Za-z0-9!#$%&'*+/?^_`{|}~-]+);(.+)")
# RFC 3339 5.6.
_DATE_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}:[0-9]{2}):([0-9]{2})(\.[0-9]+)?"
    r"(?:Z|([+-][0-9]{2}:[0-9]{2}))",
    re.IGNORECASE | re.ASCII,
)
# RFC 3461 4.4: graphic and white space of ASCII.
_PRINTABLE: Final = re.compile(rb"[ -~]+")
# RFC 3461 4.4 and 4.2, RFC 4954 3: the longest values, encoded.
_ENVID_LIMIT: Final = 100
_ORCPT_LIMIT: Final = 500
_AUTH_LIMIT: Final = 500
# RFC 1870 4: the largest number that SIZE can say.
_MOST: Final = 10**20 - 1
_SECOND: Final = timedelta(seconds=1)


class _MailFields(TypedDict, total=False):
    """The fields of MailParameters that were given."""

    size: int
    body: Body
    smtputf8: bool
    ret: Ret
    envid: str
    auth: Submitter
    require_tls: bool
    mt_priority: int
    deliver_by: DeliverBy
    hold: int | datetime


class _RcptFields(TypedDict, total=False):
    """The fields of RcptParameters that were given."""

    notify: frozenset[Notify]
    orcpt: OriginalRecipient
    rrvs: ValidSince
    ignore_quota: bool
    forward: Mapping[str, str]


class _MailKeyword(NamedTuple):
    """A parameter of MAIL."""

    extension: Extension
    read: Callable[[_MailFields, str], None]
    """Sets its field from a value, `""` where there is none. Raises ValueError."""
    write: Callable[[MailParameters], str | None]
    """Its value, `""` where it has none; None when it is not given."""
    syntax: str
    """What is wrong when `read` raises."""
    certain: bool = False
    """Whether `read` takes all that `write` gives."""


class _RcptKeyword(NamedTuple):
    """A parameter of RCPT, as `_MailKeyword` is of MAIL."""

    extension: Extension
    read: Callable[[_RcptFields, str], None]
    write: Callable[[RcptParameters], str | None]
    syntax: str


_Choice = TypeVar("_Choice", bound=Enum)


def _choice(choices: type[_Choice], value: str) -> _Choice:
    # Letters beyond ASCII may fold to ASCII letters (RFC 5321 2.4: only those fold).
    return choices(value.upper() if value.isascii() else value)


def _match(pattern: re.Pattern[str], value: str) -> re.Match[str]:
    match = pattern.fullmatch(value)
    if match is None:
        raise ValueError("malformed")
    return match


def _number(pattern: re.Pattern[str], value: str) -> int:
    return int(_match(pattern, value)[0])


def _flag(value: str) -> bool:
    if value:
        raise ValueError("a value")
    return True


def _printable(octets: bytes) -> str:
    if _PRINTABLE.fullmatch(octets) is None:
        raise ValueError("not printable ASCII")
    return octets.decode()


def _bounded(value: str, limit: int) -> str:
    if len(value) > limit:
        raise ValueError("too long")
    return value


def _read_date_time(value: str) -> datetime:
    """The time in UTC; parts of a microsecond are cut off."""
    date, time, second, fraction, offset = _match(_DATE_TIME, value).groups()
    # RFC 3339 5.7: a leap second, for which datetime has no name.
    leap = second == "60"
    text = f"{date}T{time}:{'59' if leap else second}{fraction or ''}{offset or '+00:00'}"
    try:
        found = datetime.fromisoformat(text).astimezone(UTC)
        return found + _SECOND if leap else found
    except OverflowError as error:
        raise ValueError("out of range") from error


def _read_size(fields: _MailFields, value: str) -> None:
    fields["size"] = _number(_SIZE, value)


def _write_size(parameters: MailParameters) -> str | None:
    size = parameters.size
    if size is None:
        return None
    if not 0 <= size <= _MOST:
        raise ValueError("SIZE is 20 digits at most")
    return str(size)


def _read_body(fields: _MailFields, value: str) -> None:
    fields["body"] = _choice(Body, value)


def _read_smtputf8(fields: _MailFields, value: str) -> None:
    fields["smtputf8"] = _flag(value)


def _read_ret(fields: _MailFields, value: str) -> None:
    fields["ret"] = _choice(Ret, value)


def _read_envid(fields: _MailFields, value: str) -> None:
    fields["envid"] = _printable(decode_xtext(_bounded(value, _ENVID_LIMIT)))


def _read_auth(fields: _MailFields, value: str) -> None:
    text = decode_xtext(_bounded(value, _AUTH_LIMIT)).decode()
    fields["auth"] = Submitter(None if text == "<>" else parse_mailbox(text))


def _read_require_tls(fields: _MailFields, value: str) -> None:
    fields["require_tls"] = _flag(value)


def _read_mt_priority(fields: _MailFields, value: str) -> None:
    fields["mt_priority"] = _number(_PRIORITY, value)


def _read_by(fields: _MailFields, value: str) -> None:
    seconds, mode, trace = _match(_BY, value).groups()
    by = DeliverBy(int(seconds), _choice(ByMode, mode), bool(trace))
    if by.mode is ByMode.RETURN and by.seconds <= 0:
        raise ValueError("no time left")
    fields["deliver_by"] = by


def _write_by(parameters: MailParameters) -> str | None:
    by = parameters.deliver_by
    return by and f"{by.seconds};{by.mode.value}{'T' if by.trace else ''}"


def _read_hold_for(fields: _MailFields, value: str) -> None:
    fields["hold"] = _number(_SECONDS, value)


def _write_hold_for(parameters: MailParameters) -> str | None:
    hold = parameters.hold
    return str(hold) if isinstance(hold, int) else None


def _read_hold_until(fields: _MailFields, value: str) -> None:
    fields["hold"] = _read_date_time(value)


def _write_hold_until(parameters: MailParameters) -> str | None:
    hold = parameters.hold
    return hold.isoformat() if isinstance(hold, datetime) else None


def _read_notify(fields: _RcptFields, value: str) -> None:
    notify = frozenset(_choice(Notify, item) for item in value.split(","))
    if Notify.NEVER in notify and len(notify) > 1:
        raise ValueError("NEVER stands alone")
    fields["notify"] = notify


def _write_notify(parameters: RcptParameters) -> str | None:
    notify = parameters.notify
    if notify is None:
        return None
    return ",".join(item.value for item in Notify if item in notify)


def _read_orcpt(fields: _RcptFields, value: str) -> None:
    addr_type, text = _match(_ORCPT, _bounded(value, _ORCPT_LIMIT)).groups()
    if addr_type.lower() == "utf-8":
        address = decode_unitext(text)
    else:
        address = _printable(decode_xtext(text))
    fields["orcpt"] = OriginalRecipient(addr_type, address)


def _write_orcpt(parameters: RcptParameters) -> str | None:
    orcpt = parameters.orcpt
    if orcpt is None:
        return None
    if ";" in orcpt.addr_type:
        raise ValueError("a semicolon ends the type of an address")
    if orcpt.addr_type.lower() == "utf-8":
        return f"{orcpt.addr_type};{encode_unitext(orcpt.address)}"
    return f"{orcpt.addr_type};{encode_xtext(orcpt.address.encode())}"


def _read_rrvs(fields: _RcptFields, value: str) -> None:
    since, semicolon, action = value.partition(";")
    fields["rrvs"] = ValidSince(
        _read_date_time(since), _choice(RrvsAction, action) if semicolon else None
    )


def _write_rrvs(parameters: RcptParameters) -> str | None:
    rrvs = parameters.rrvs
    if rrvs is None:
        return None
    return rrvs.since.isoformat() + (f";{rrvs.action.value}" if rrvs.action else "")


def _read_ignore_quota(fields: _RcptFields, value: str) -> None:
    fields["ignore_quota"] = _flag(value)


def _read_forward(fields: _RcptFields, value: str) -> None:
    fields["forward"] = decode_fields(value)


_MAIL: Final = {
    "SIZE": _MailKeyword(
        Extension.SIZE,
        _read_size,
        _write_size,
        "SIZE is a number of octets",
        certain=True,
    ),
    "BODY": _MailKeyword(
        Extension.EIGHTBITMIME,
        _read_body,
        lambda given: given.body and given.body.value,
        "BODY is 7BIT or 8BITMIME, or BINARYMIME if it is offered",
        certain=True,
    ),
    "SMTPUTF8": _MailKeyword(
        Extension.SMTPUTF8,
        _read_smtputf8,
        lambda given: "" if given.smtputf8 else None,
        "SMTPUTF8 has no value",
    ),
    "RET": _MailKeyword(
        Extension.DSN,
        _read_ret,
        lambda given: given.ret and given.ret.value,
        "RET is FULL or HDRS",
    ),
    "ENVID": _MailKeyword(
        Extension.DSN,
        _read_envid,
        lambda given: None if given.envid is None else encode_xtext(given.envid.encode()),
        f"ENVID is xtext of printable ASCII, {_ENVID_LIMIT} characters at most",
    ),
    "AUTH": _MailKeyword(
        Extension.AUTH,
        _read_auth,
        lambda given: given.auth and encode_xtext(str(given.auth.mailbox or "<>").encode()),
        "AUTH is <> or a mailbox in xtext",
    ),
    "REQUIRETLS": _MailKeyword(
        Extension.REQUIRETLS,
        _read_require_tls,
        lambda given: "" if given.require_tls else None,
        "REQUIRETLS has no value",
    ),
    "MT-PRIORITY": _MailKeyword(
        Extension.MT_PRIORITY,
        _read_mt_priority,
        lambda given: None if given.mt_priority is None else str(given.mt_priority),
        "MT-PRIORITY is -9 to 9",
    ),
    "BY": _MailKeyword(
        Extension.DELIVERBY,
        _read_by,
        _write_by,
        "BY is seconds;N or seconds;R, with R more than 0",
    ),
    "HOLDFOR": _MailKeyword(
        Extension.FUTURERELEASE,
        _read_hold_for,
        _write_hold_for,
        "HOLDFOR is a number of seconds",
    ),
    "HOLDUNTIL": _MailKeyword(
        Extension.FUTURERELEASE,
        _read_hold_until,
        _write_hold_until,
        "HOLDUNTIL is a date and time with its offset",
    ),
}
_RCPT: Final = {
    "NOTIFY": _RcptKeyword(
        Extension.DSN,
        _read_notify,
        _write_notify,
        "NOTIFY is NEVER or some of SUCCESS,FAILURE,DELAY",
    ),
    "ORCPT": _RcptKeyword(
        Extension.DSN,
        _read_orcpt,
        _write_orcpt,
        f"ORCPT is a type;address in xtext, {_ORCPT_LIMIT} characters at most",
    ),
    "RRVS": _RcptKeyword(
        Extension.RRVS,
        _read_rrvs,
        _write_rrvs,
        "RRVS is a date and time with its offset, and ;C or ;R",
    ),
    "IGNOREQUOTA": _RcptKeyword(
        Extension.IGNOREQUOTA,
        _read_ignore_quota,
        lambda given: "" if given.ignore_quota else None,
        "IGNOREQUOTA has no value",
    ),
    "XRCPTFORWARD": _RcptKeyword(
        Extension.XRCPTFORWARD,
        _read_forward,
        lambda given: None if given.forward is None else encode_fields(given.forward),
        "XRCPTFORWARD is tab-escaped fields in xtext",
    ),
}

_SHORT: Final = re.compile(r"SIZE=([0-9]{1,20})( BODY=8BITMIME)?")
_COMMON: Final = frozenset({Extension.SIZE, Extension.EIGHTBITMIME})
_ALL: Final = frozenset(Extension)


def mail_parameters(
    text: str, extensions: frozenset[Extension], most: int, count: int
) -> MailParameters:
    """The parameters of MAIL, `count` at most; `most` is the largest SIZE, in octets.

    Raises ParameterError.
    """
    # What nearly every client says, and nothing else, is worth a short way.
    short = _SHORT.fullmatch(text)
    if short is not None and extensions >= _COMMON:
        size = int(short[1])
        if size > most:
            raise _too_big(most)
        return MailParameters(size=size, body=Body.EIGHTBITMIME if short[2] else None)
    fields: _MailFields = {}
    given = _split(text, count)
    for name, value in given.items():
        keyword = _MAIL.get(name)
        if keyword is None or keyword.extension not in extensions:
            raise _unknown(name)
        try:
            keyword.read(fields, value)
        except ValueError:
            raise _malformed(keyword.syntax) from None
    if fields.get("size", 0) > most:
        raise _too_big(most)
    if fields.get("body") is Body.BINARYMIME and Extension.BINARYMIME not in extensions:
        raise _malformed(_MAIL["BODY"].syntax)
    # RFC 4865: one or the other.
    if "HOLDFOR" in given and "HOLDUNTIL" in given:
        raise _malformed("HOLDFOR and HOLDUNTIL exclude each other")
    return MailParameters(**fields)


def rcpt_parameters(text: str, extensions: frozenset[Extension], count: int) -> RcptParameters:
    """The parameters of RCPT, `count` at most. Raises ParameterError."""
    fields: _RcptFields = {}
    for name, value in _split(text, count).items():
        keyword = _RCPT.get(name)
        if keyword is None or keyword.extension not in extensions:
            raise _unknown(name)
        try:
            keyword.read(fields, value)
        except ValueError:
            raise _malformed(keyword.syntax) from None
    return RcptParameters(**fields)


def encode_mail_parameters(parameters: MailParameters) -> str:
    """The parameters of MAIL as they stand behind the path, a space before each.

    Raises LocalProtocolError for what no server could read.
    """
    if parameters is NO_MAIL_PARAMETERS:
        return ""
    text = ""
    certain = True
    try:
        for name, keyword in _MAIL.items():
            value = keyword.write(parameters)
            if value is not None:
                text += f" {name}={value}" if value else f" {name}"
                certain = certain and keyword.certain
        if not certain:
            mail_parameters(text[1:], _ALL, _MOST, len(_MAIL))
    except ValueError as error:
        raise LocalProtocolError(f"MAIL cannot carry {parameters}: {error}") from error
    return text


def encode_rcpt_parameters(parameters: RcptParameters) -> str:
    """The parameters of RCPT, as `encode_mail_parameters()` those of MAIL."""
    if parameters is NO_RCPT_PARAMETERS:
        return ""
    text = ""
    try:
        for name, keyword in _RCPT.items():
            value = keyword.write(parameters)
            if value is not None:
                text += f" {name}={value}" if value else f" {name}"
        if text:
            rcpt_parameters(text[1:], _ALL, len(_RCPT))
    except ValueError as error:
        raise LocalProtocolError(f"RCPT cannot carry {parameters}: {error}") from error
    return text


def _split(text: str, count: int) -> dict[str, str]:
    """`KEYWORD[=value]` separated by one space: keywords in upper case to values, `""` for none.

    Raises ParameterError.
    """
    if text.count(" ") >= count:
        # RFC 5321 4.1.1.11: what cannot be taken is 555.
        raise ParameterError(Reply(555, f"more than {count} parameters", enhanced="5.5.4"))
    found: dict[str, str] = {}
    for item in text.split(" "):
        match = _PARAMETER.fullmatch(item)
        if match is None:
            raise _malformed("malformed parameter")
        name = match[1].upper()
        if name in found:
            raise _malformed(f"{name} is given twice")
        found[name] = match[2] or ""
    return found


def _too_big(most: int) -> ParameterError:
    return ParameterError(Reply(552, f"message size exceeds {most} octets", enhanced="5.3.4"))


def _malformed(text: str) -> ParameterError:
    return ParameterError(Reply(501, text, enhanced="5.5.4"))


def _unknown(keyword: str) -> ParameterError:
    return ParameterError(Reply(555, f"{keyword} is not supported", enhanced="5.5.4"))
