"""What happens to content that RFC 5321 does not allow: bare CR, bare LF, NUL and long lines.

Octets are never lost or doubled: what is kept stays as it came, what is replaced has a rule, and
what is refused is cut at the first octet that breaks the policy. However the content is divided,
the outcome is the same. None of this decides where content ends: that is CRLF "." CRLF alone
(RFC 5321 4.1.1.4), or the count of BDAT.
"""

from dataclasses import dataclass, replace
from enum import Enum
from io import IncrementalNewlineDecoder
from typing import Final

from ._reply import Reply


class Treatment(Enum):
    """What is done with octets that a content should not have."""

    __hash__ = object.__hash__

    KEEP = "keep"
    """They stay as they came."""
    REJECT = "reject"
    """The content is refused: by a server with `554 5.6.0` for every recipient, after its end."""
    NORMALISE = "normalise"
    """They are replaced by what is allowed, as `ContentPolicy` says for each."""


_KEEP: Final = Treatment.KEEP
_REJECT: Final = Treatment.REJECT


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentPolicy:
    """The treatment of each thing that a content should not have.

    By default everything is kept, which is what a server wants that stores messages: nothing but
    CRLF "." CRLF ends a content, so nothing can be smuggled into it, no octet that a signature
    covers is changed, and it costs nothing. A server that hands messages on to others had better
    reject bare CR and LF, since the others may take them for line ends.

    Raises ValueError for a treatment that would damage messages or a limit below RFC 5321's.
    """

    bare_cr: Treatment = _KEEP
    """CR without LF behind it (RFC 5321 2.3.8). Normalised it becomes a space, as Postfix's
    `cleanup_replace_stray_cr_lf` has it: it is no line end anywhere, and made one it would cut the
    header of a message whose lines end in CR CR LF."""
    bare_lf: Treatment = _KEEP
    """LF without CR in front of it (RFC 5321 2.3.8). Normalised it becomes CRLF, as Postfix's
    `smtpd_forbid_bare_newline = normalize` has it: it is the line end of local text. The content
    grows by an octet for each; `Limits.message_size` counts what was sent."""
    nul: Treatment = _KEEP
    """The octet 0, which RFC 5322 4 no longer allows. Normalised it becomes a space. It is not
    taken out: CR and LF on both sides of it would become a line end that nobody sent."""
    long_line: Treatment = _KEEP
    """A line of more than `line_length` octets. It cannot be normalised: a fold changes what is
    encoded or signed."""
    line_length: int = 1000
    """Octets of the longest line, with its CRLF and without a stuffed dot. RFC 5321 4.5.3.1.6 wants
    1000 at least. A line ends with CRLF alone."""

    def __post_init__(self) -> None:
        if self.long_line is Treatment.NORMALISE:
            raise ValueError("ContentPolicy.long_line is NORMALISE; KEEP or REJECT")
        if self.line_length < 1000:
            raise ValueError(f"ContentPolicy.line_length is {self.line_length}; at least 1000")

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever refused or changed."""
        return (
            self.bare_cr is _KEEP
            and self.bare_lf is _KEEP
            and self.nul is _KEEP
            and self.long_line is _KEEP
        )

    def without_changes(self) -> "ContentPolicy":
        """The policy that rejects what this one would normalise."""
        bare_cr, bare_lf, nul = (
            _REJECT if treatment is Treatment.NORMALISE else treatment
            for treatment in (self.bare_cr, self.bare_lf, self.nul)
        )
        return replace(self, bare_cr=bare_cr, bare_lf=bare_lf, nul=nul)


INCOMING_CONTENT: Final = ContentPolicy()
"""What a server does unless told otherwise: it keeps every octet."""

# RFC 5321 2.3.8: a client must not send CR or LF but as CRLF. What its caller gives it is text
# whose lines may end as they do in a local file; NUL and long lines are the server's to judge.
OUTGOING_CONTENT: Final = ContentPolicy(bare_cr=Treatment.NORMALISE, bare_lf=Treatment.NORMALISE)
"""What a client does unless told otherwise: it sends no bare CR and no bare LF."""


def _refusal(text: str) -> Reply:
    return Reply(554, text, enhanced="5.6.0")


_BARE_CR: Final = _refusal("bare CR in the content: its lines end with CRLF")
_BARE_LF: Final = _refusal("bare LF in the content: its lines end with CRLF")
_NUL: Final = _refusal("NUL in the content")

_CR: Final = 13
# Stands for CRLF in text decoded octet by octet: no octet decodes to it.
_CRLF: Final = "\u0100"


class PolicyFilter:
    """Carries out a policy on one content, given in any pieces.

    Each octet is searched a constant number of times, by primitives that run in C, whatever the
    content is.
    """

    __slots__ = ("_bare_cr", "_bare_lf", "_column", "_held", "_limit", "_nul", "refusal")

    def __init__(self, policy: ContentPolicy) -> None:
        self._bare_cr = policy.bare_cr
        self._bare_lf = policy.bare_lf
        self._nul = policy.nul
        self._limit = policy.line_length if policy.long_line is _REJECT else 0
        # Octets of the line that has begun.
        self._column = 0
        # The last octet was a CR: the next one tells whether it is a bare one.
        self._held = False
        self.refusal: Reply | None = None
        """Why the content is refused, None while it is not; read-only."""

    def feed(self, data: bytes) -> bytes:
        """The octets that `data` lets through, perhaps none yet.

        They stop in front of the first octet that is refused; nothing follows them.
        """
        if not data or self.refusal is not None:
            return b""
        if self._held:
            data = b"\r" + data
        self._held = data[-1] == _CR
        return self._apply(data[:-1] if self._held else data)

    def finish(self) -> bytes:
        """The content is complete: the octets that were held back, none the second time."""
        if not self._held or self.refusal is not None:
            return b""
        self._held = False
        return self._apply(b"\r")

    def _apply(self, data: bytes) -> bytes:
        """The policy on octets whose last one is a CR only where that is a bare one."""
        if self._nul is not _KEEP and b"\0" in data:
            if self._nul is _REJECT:
                self.refusal = _NUL
                data = data[: data.find(b"\0")]
            else:
                data = data.replace(b"\0", b" ")
        if (self._bare_cr is not _KEEP or self._bare_lf is not _KEEP) and not _only_crlf(data):
            data = self._apply_to_line_ends(data)
        return self._apply_to_lines(data) if self._limit else data

    def _apply_to_line_ends(self, data: bytes) -> bytes:
        text = data.decode("latin-1").replace("\r\n", _CRLF)
        for treatment, refusal, bare, allowed in (
            (self._bare_cr, _BARE_CR, "\r", " "),
            (self._bare_lf, _BARE_LF, "\n", _CRLF),
        ):
            if treatment is _REJECT:
                place = text.find(bare)
                if place >= 0:
                    # It stands in front of whatever was refused before.
                    self.refusal = refusal
                    text = text[:place]
            elif treatment is not _KEEP:
                text = text.replace(bare, allowed)
        return text.replace(_CRLF, "\r\n").encode("latin-1")

    def _apply_to_lines(self, data: bytes) -> bytes:
        """Jump from line end to line end, always to the last one that the limit allows."""
        limit = self._limit
        size = len(data)
        # Negative when the line has begun in octets before these.
        start = -self._column
        while size - start >= limit:
            end = data.rfind(b"\r\n", max(0, start), start + limit)
            if end < 0:
                self.refusal = _refusal(f"a line of the content has more than {limit} octets")
                return data[: start + limit - 1]
            start = end + 2
        end = data.rfind(b"\r\n", max(0, start))
        self._column = size - (start if end < 0 else end + 2)
        return data


def _only_crlf(data: bytes) -> bool:
    """Whether CR and LF stand in pairs alone.

    The decoder of text files notes which line ends it has met; no other primitive of the standard
    library tells CRLF from CR and LF in one pass, however short the lines are.
    """
    met = IncrementalNewlineDecoder(None, translate=False)
    met.decode(data.decode("latin-1"), final=True)
    return met.newlines is None or met.newlines == "\r\n"
