"""Command lines: from octets to the event they mean, and from a command to its octets.

Every line gives either a command or a `CommandError` with the reply it deserves.
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from typing import Final, assert_never

from ._address import (
    STRICT,
    Address,
    PathError,
    PathRules,
    parse_path,
    scan_mailbox,
    scan_path,
)
from ._attributes import XCLIENT, XFORWARD, parse_attributes
from ._events import (
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Data,
    Help,
    Lhlo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Recipient,
    Rset,
    StartTls,
    Vrfy,
    XClient,
    XForward,
)
from ._extensions import Extension, effective
from ._limits import Limits
from ._parameters import (
    NO_MAIL_PARAMETERS,
    NO_RCPT_PARAMETERS,
    ParameterError,
    encode_mail_parameters,
    encode_rcpt_parameters,
    mail_parameters,
    rcpt_parameters,
)
from ._reply import Reply
from ._state import Verb
from ._xtext import encode_xtext


class CommandError(ValueError):
    """A line that is no command here; `reply` is its answer.

    `verb` is the command's where that is known. `skip` is the number of octets behind the line that
    belong to it (a BDAT that cannot be taken). `fatal`: the peer does not speak LMTP at all.
    """

    def __init__(
        self, reply: Reply, *, verb: Verb | None = None, skip: int = 0, fatal: bool = False
    ) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.verb = verb
        self.skip = skip
        self.fatal = fatal


_SYNTAX: Final = Reply(500, "command syntax error", enhanced="5.5.2")
_UNKNOWN: Final = Reply(500, "command not recognized", enhanced="5.5.1")
_NOT_LMTP: Final = Reply(500, "this is LMTP: begin with LHLO", enhanced="5.5.1")
_FOREIGN: Final = Reply(500, "this is not an LMTP client", enhanced="5.5.1")
_NOT_OFFERED: Final = Reply(502, "command not implemented", enhanced="5.5.1")
_NO_ARGUMENT: Final = Reply(501, "this command takes no argument", enhanced="5.5.4")
# RFC 5321 4.1.2: where nothing else is wrong with the command.
_CHARACTER: Final = Reply(501, "a character that no argument has", enhanced="5.5.2")
# RFC 6531 3.5 has a code of its own for each of the two.
_SENDER_NOT_ASCII: Final = Reply(
    550, "the address is not ASCII: SMTPUTF8 is needed", enhanced="5.6.7"
)
NOT_ASCII: Final = Reply(553, "the address is not ASCII: SMTPUTF8 is needed", enhanced="5.6.7")
_CHUNK_SIZE: Final = Reply(501, "syntax: BDAT size [LAST]", enhanced="5.5.4")

# RFC 5321 4.5.1, F.6 and of extensions: known, but not served here.
_KNOWN: Final = frozenset(
    {"EXPN", "SEND", "SOML", "SAML", "TURN", "ETRN", "ATRN", "AUTH", "BURL", "BDAT"}
    | {"STARTTLS", "XCLIENT", "XFORWARD"}
)
# A browser or another HTTP client can be made to send mail commands in its body: the session ends
# before they are read.
_HTTP: Final = frozenset(
    b"GET POST PUT HEAD OPTIONS DELETE PATCH CONNECT TRACE PRI HOST: HOST".split()
)

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_VERB: Final = re.compile(r"[A-Za-z]{1,32}")
_FIRST_WORD: Final = re.compile(r"[A-Za-z]{1,32}(?=[\x00-\x20]|\Z)")
# RFC 4422 3.1: sasl-mech; verbs and keywords are known in any case.
_MECHANISM: Final = re.compile(r"[A-Za-z0-9_-]{1,20}")
_LAST: Final = re.compile("last", re.IGNORECASE | re.ASCII)
# RFC 3030 2: chunk-size is 1*DIGIT.
_CHUNK: Final = re.compile(r"([0-9]{1,20})(?: (.*))?")

_Parser = Callable[[str, "CommandParser"], Command]


def _lhlo(argument: str, parser: "CommandParser") -> Command:
    # RFC 5321 4.1.4: a name that cannot be verified is no reason to refuse; nor is an odd one.
    if not argument:
        raise CommandError(Reply(501, "syntax: LHLO domain", enhanced="5.5.4"))
    return Lhlo(domain=argument)


def _mail(argument: str, parser: "CommandParser") -> Command:
    path, rest = _path(argument, "MAIL", "FROM:<", parser.path_rules)
    if path is not None and not path.domain and not parser.path_rules.missing_domain:
        raise CommandError(Reply(501, "the sender has no domain", enhanced="5.1.7"))
    parameters = NO_MAIL_PARAMETERS
    if rest:
        try:
            limits = parser.limits
            parameters = mail_parameters(
                rest, parser.extensions, limits.message_size, limits.parameters
            )
        except ParameterError as error:
            raise CommandError(error.reply) from None
    # RFC 6531 3.5.
    if not argument.isascii() and not parameters.smtputf8:
        raise CommandError(_SENDER_NOT_ASCII)
    return Mail(reverse_path=path, parameters=parameters)


def _rcpt(argument: str, parser: "CommandParser") -> Command:
    # RFC 6531 3.5. Whether this transaction may go beyond ASCII, only the connection knows.
    if not argument.isascii() and Extension.SMTPUTF8 not in parser.extensions:
        raise CommandError(NOT_ASCII)
    path, rest = _path(argument, "RCPT", "TO:<", parser.path_rules)
    if path is None:
        raise CommandError(Reply(501, "the null path is no recipient", enhanced="5.1.3"))
    # RFC 5321 4.1.1.3: only Postmaster is known without a domain.
    if (
        not path.domain
        and path.local_part.lower() != "postmaster"
        and not parser.path_rules.missing_domain
    ):
        raise CommandError(Reply(501, "the recipient has no domain", enhanced="5.1.3"))
    parameters = NO_RCPT_PARAMETERS
    if rest:
        try:
            parameters = rcpt_parameters(rest, parser.extensions, parser.limits.parameters)
        except ParameterError as error:
            raise CommandError(error.reply) from None
    return Rcpt(recipient=Recipient(address=path, parameters=parameters))


def _path(argument: str, verb: str, begin: str, rules: PathRules) -> tuple[Address | None, str]:
    """The path that begins as `begin` does, and the parameters behind it. Raises CommandError."""
    try:
        text, bracket, rest = argument.partition(">")
        if bracket and text.startswith(begin) and '"' not in text:
            # As nearly every client writes it.
            path = parse_path(text[len(begin) :])
        else:
            path, rest = _odd_path(argument, verb, begin, rules)
        if rest and rest[0] != " ":
            raise PathError("a space ends the path")
    except PathError as error:
        enhanced = "5.1.7" if verb == "MAIL" else "5.1.3"
        raise CommandError(Reply(501, str(error), enhanced=enhanced)) from None
    return path, rest[1:]


def _odd_path(argument: str, verb: str, begin: str, rules: PathRules) -> tuple[Address | None, str]:
    """A path however it may be written, and all behind it. Raises CommandError or PathError."""
    keyword = begin[:-1]
    start = len(keyword)
    if argument[:start].upper() != keyword:
        raise CommandError(Reply(501, f"syntax: {verb} {begin}address>", enhanced="5.5.4"))
    if rules.whitespace_before_path:
        while argument.startswith(" ", start):
            start += 1
    path: Address | None
    if rules.mailbox_for_path and not argument.startswith("<", start):
        path, end = scan_mailbox(argument, start)
    else:
        path, end = scan_path(argument, start)
    return path, argument[end:]


def _bdat(argument: str, parser: "CommandParser") -> Command:
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise CommandError(_CHUNK_SIZE, verb=Verb.BDAT)
    size = int(match[1])
    if match[2] is None:
        return Bdat(size=size)
    if _LAST.fullmatch(match[2]) is None:
        raise CommandError(_CHUNK_SIZE, verb=Verb.BDAT, skip=size)
    return Bdat(size=size, last=True)


def _noop(argument: str, parser: "CommandParser") -> Command:
    return Noop(text=argument)


def _vrfy(argument: str, parser: "CommandParser") -> Command:
    if not argument:
        raise CommandError(Reply(501, "syntax: VRFY user", enhanced="5.5.4"))
    return Vrfy(text=argument)


def _help(argument: str, parser: "CommandParser") -> Command:
    return Help(text=argument)


def _auth(argument: str, parser: "CommandParser") -> Command:
    mechanism, space, response = argument.partition(" ")
    if _MECHANISM.fullmatch(mechanism) is None:
        raise CommandError(Reply(501, "syntax: AUTH mechanism [response]", enhanced="5.5.4"))
    if not space:
        return Auth(mechanism=mechanism.upper())
    # RFC 4954 4: "=" is an initial response without octets.
    octets = b"" if response == "=" else decode_base64(response)
    return Auth(mechanism=mechanism.upper(), response=octets)


def decode_base64(text: str) -> bytes:
    """The octets of one base64 text. Raises CommandError (RFC 4954 4: 501 5.5.2)."""
    try:
        return a2b_base64(text, strict_mode=True)
    except (Base64Error, ValueError):
        raise CommandError(Reply(501, "cannot decode base64", enhanced="5.5.2")) from None


def _xclient(argument: str, parser: "CommandParser") -> Command:
    return XClient(attributes=_attributes(argument, XCLIENT))


def _xforward(argument: str, parser: "CommandParser") -> Command:
    return XForward(attributes=_attributes(argument, XFORWARD))


def _attributes(argument: str, known: dict[str, Callable[[str], str]]) -> Mapping[str, str | None]:
    try:
        return parse_attributes(argument, known)
    except ValueError as error:
        raise CommandError(Reply(501, str(error), enhanced="5.5.4")) from None


def _bare(command: Command) -> _Parser:
    def parse(argument: str, parser: "CommandParser") -> Command:
        # RFC 5321 4.1.1: these commands have no arguments.
        if argument:
            raise CommandError(_NO_ARGUMENT)
        return command

    return parse


# Looking a member up in its class costs more than a dictionary.
_BDAT: Final = Verb.BDAT
_DATA: Final = Data()
_RSET: Final = Rset()
_QUIT: Final = Quit()
# Lines that mean the same everywhere, as nearly every client writes them.
_AS_WRITTEN: Final[dict[bytes, tuple[Verb, Command]]] = {
    b"DATA": (Verb.DATA, _DATA),
    b"RSET": (Verb.RSET, _RSET),
    b"QUIT": (Verb.QUIT, _QUIT),
}
_PARSERS: Final[dict[str, tuple[Verb, _Parser]]] = {
    "LHLO": (Verb.LHLO, _lhlo),
    "MAIL": (Verb.MAIL, _mail),
    "RCPT": (Verb.RCPT, _rcpt),
    "DATA": (Verb.DATA, _bare(_DATA)),
    "RSET": (Verb.RSET, _bare(_RSET)),
    "NOOP": (Verb.NOOP, _noop),
    "VRFY": (Verb.VRFY, _vrfy),
    "HELP": (Verb.HELP, _help),
    "QUIT": (Verb.QUIT, _bare(_QUIT)),
}
_EXTENSION_PARSERS: Final[dict[Extension, tuple[str, tuple[Verb, _Parser]]]] = {
    Extension.CHUNKING: ("BDAT", (Verb.BDAT, _bdat)),
    Extension.STARTTLS: ("STARTTLS", (Verb.STARTTLS, _bare(StartTls()))),
    Extension.AUTH: ("AUTH", (Verb.AUTH, _auth)),
    Extension.XCLIENT: ("XCLIENT", (Verb.XCLIENT, _xclient)),
    Extension.XFORWARD: ("XFORWARD", (Verb.XFORWARD, _xforward)),
}


class CommandParser:
    """Reads the command lines of a server with these limits, extensions and rules for paths."""

    __slots__ = ("_parsers", "extensions", "guarded", "limits", "path_rules")

    def __init__(
        self,
        limits: Limits,
        extensions: frozenset[Extension],
        path_rules: PathRules = STRICT,
    ) -> None:
        self.limits = limits
        self.extensions = effective(extensions)
        self.path_rules = path_rules
        # Commands that the table alone does not decide; the others need no second look.
        self.guarded = {Verb.BDAT, Verb.BDAT_LAST, Verb.STARTTLS, Verb.AUTH}
        if limits.transactions is not None or Extension.REQUIRETLS in self.extensions:
            self.guarded.add(Verb.MAIL)
        if Extension.BINARYMIME in self.extensions:
            self.guarded.add(Verb.DATA)
        self._parsers = dict(_PARSERS)
        for extension, (verb, parser) in _EXTENSION_PARSERS.items():
            if extension in self.extensions:
                self._parsers[verb] = parser

    @property
    def verbs(self) -> list[str]:
        """The commands that are taken."""
        return list(self._parsers)

    def parse(self, line: bytes) -> tuple[Verb, Command]:
        """The command in `line` (without CRLF). Raises CommandError."""
        known = _AS_WRITTEN.get(line)
        if known is not None:
            return known
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise self._bad_character(line.decode("latin-1")) from None
        if not text.isprintable():
            text = self._odd_text(text)
        word, _, argument = text.partition(" ")
        if text[-1:] == " ":
            # RFC 5321 4.1.1: trailing white space is tolerated.
            argument = argument.rstrip(" ")
        found = self._parsers.get(word)
        # Folding is for ASCII letters (RFC 5321 2.4): other letters may fold to them too.
        if found is None and word.isascii():
            found = self._parsers.get(word.upper())
        if found is None:
            raise self._unknown(word)
        verb, parser = found
        if argument.startswith(" "):
            raise CommandError(_SYNTAX, verb=verb)
        command = parser(argument, self)
        if verb is _BDAT and isinstance(command, Bdat) and command.last:
            verb = Verb.BDAT_LAST
        return verb, command

    def _odd_text(self, text: str) -> str:
        """`text` without trailing tabs, where nothing else about it is wrong."""
        text = text.rstrip(" \t")
        if _CONTROL.search(text):
            raise self._bad_character(text)
        return text

    def _bad_character(self, text: str) -> CommandError:
        match = _FIRST_WORD.match(text)
        word = match[0].upper() if match else ""
        if word.encode() in _HTTP:
            return self._unknown(word)
        verb = self._parsers[word][0] if word in self._parsers else None
        in_argument = verb is not None and text[len(word) :].startswith(" ")
        return CommandError(_CHARACTER if in_argument else _SYNTAX, verb=verb)

    def _unknown(self, word: str) -> CommandError:
        name = word.upper()
        if name.encode() in _HTTP:
            return CommandError(_FOREIGN, fatal=True)
        if name in ("HELO", "EHLO"):
            # RFC 2033 4.1: a server that speaks LMTP must not accept them.
            return CommandError(_NOT_LMTP)
        if name in _KNOWN:
            return CommandError(_NOT_OFFERED)
        return CommandError(_UNKNOWN if _VERB.fullmatch(word) else _SYNTAX)


def encode_command(command: Command) -> bytes:
    """The octets of a command, CRLF included. The caller has checked its texts."""
    match command:
        case Mail(reverse_path=path, parameters=parameters):
            text = f"MAIL FROM:<{path or ''}>{encode_mail_parameters(parameters)}"
        case Rcpt(recipient=recipient):
            text = f"RCPT TO:<{recipient.address}>{encode_rcpt_parameters(recipient.parameters)}"
        case Data():
            text = "DATA"
        case Bdat(size=size, last=last):
            text = f"BDAT {size} LAST" if last else f"BDAT {size}"
        case Lhlo(domain=domain):
            text = f"LHLO {domain}"
        case Rset():
            text = "RSET"
        case Noop(text=argument):
            text = f"NOOP {argument}" if argument else "NOOP"
        case Vrfy(text=argument):
            text = f"VRFY {argument}"
        case Help(text=argument):
            text = f"HELP {argument}" if argument else "HELP"
        case Quit():
            text = "QUIT"
        case StartTls():
            text = "STARTTLS"
        case Auth(mechanism=mechanism, response=response):
            text = f"AUTH {mechanism}"
            if response is not None:
                text += f" {_encode_base64(response) or '='}"
        case AuthResponse(response=response):
            text = "*" if response is None else _encode_base64(response)
        case XClient(attributes=attributes):
            text = f"XCLIENT {_encode_attributes(attributes)}"
        case XForward(attributes=attributes):
            text = f"XFORWARD {_encode_attributes(attributes)}"
        case _:
            assert_never(command)
    return f"{text}\r\n".encode()


def _encode_base64(octets: bytes) -> str:
    return b2a_base64(octets, newline=False).decode("ascii")


def _encode_attributes(attributes: Mapping[str, str | None]) -> str:
    return " ".join(
        f"{name}={'[UNAVAILABLE]' if value is None else encode_xtext(value.encode())}"
        for name, value in attributes.items()
    )
