"""The exchanges by which a client proves who it is (RFC 4422), as far as they need no secret here.

A mechanism turns the client's responses into challenges and, in the end, into `Credentials`, which
the handler judges. Every response gives one of the two, or a `SaslError`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol


class SaslError(ValueError):
    """A response that is none of this mechanism; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who the client says it is, and what it gave to prove it."""

    mechanism: str
    authentication_id: str
    """Whose proof it is; `""` for EXTERNAL, where TLS or the socket has told."""
    authorization_id: str
    """As whom the client wants to act; `""` is whoever has proved it."""
    password: str | None = field(default=None, repr=False)
    """None where the mechanism carries none."""


class Mechanism(Protocol):
    """One exchange."""

    def respond(self, response: bytes | None, /) -> bytes | Credentials:
        """The next challenge, or the credentials when the exchange is complete.

        `response` None is the beginning of an exchange without initial response. Raises SaslError.
        """


class Plain:
    """PLAIN (RFC 4616)."""

    def respond(self, response: bytes | None, /) -> bytes | Credentials:
        """One response: authorization, authentication and password, separated by NUL."""
        if response is None:
            return b""
        parts = _text(response).split("\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise SaslError("PLAIN is authorization NUL authentication NUL password")
        return Credentials(
            mechanism="PLAIN",
            authorization_id=parts[0],
            authentication_id=parts[1],
            password=parts[2],
        )


class Login:
    """LOGIN, the obsolete one that clients still speak: user name, then password."""

    def __init__(self) -> None:
        self._user: str | None = None

    def respond(self, response: bytes | None, /) -> bytes | Credentials:
        """Ask for one, then for the other; the user name may come first unasked."""
        if response is None:
            return b"Username:"
        text = _text(response)
        if not text or "\0" in text:
            raise SaslError("LOGIN is a user name, then a password")
        if self._user is None:
            self._user = text
            return b"Password:"
        return Credentials(
            mechanism="LOGIN", authorization_id="", authentication_id=self._user, password=text
        )


class External:
    """EXTERNAL (RFC 4422 A): TLS or the socket has proved it, the client says as whom it acts."""

    def respond(self, response: bytes | None, /) -> bytes | Credentials:
        """One response: the authorization, perhaps empty."""
        if response is None:
            return b""
        text = _text(response)
        if "\0" in text:
            raise SaslError("EXTERNAL is an authorization without NUL")
        return Credentials(mechanism="EXTERNAL", authorization_id=text, authentication_id="")


def _text(response: bytes) -> str:
    try:
        return response.decode()
    except UnicodeDecodeError:
        raise SaslError("the response is not UTF-8") from None


MECHANISMS: Final[dict[str, Callable[[], Mechanism]]] = {
    "PLAIN": Plain,
    "LOGIN": Login,
    "EXTERNAL": External,
}
"""What can be offered without further ado."""

PLAINTEXT: Final = frozenset({"PLAIN", "LOGIN"})
"""Mechanisms that show the password to whoever listens (RFC 4954 4)."""
