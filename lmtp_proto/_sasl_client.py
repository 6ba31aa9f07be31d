"""The client's side of the exchanges by which it proves who it is (RFC 4422).

A mechanism turns the server's challenges into responses. What it keeps secret is in no `repr()` and
in no error.
"""

from typing import Final, Protocol


class ClientMechanism(Protocol):
    """One mechanism, with what the client proves itself by."""

    @property
    def name(self) -> str:
        """What AUTH calls it, such as `PLAIN`."""

    def respond(self, challenge: bytes | None, /) -> bytes | None:
        """The response to a challenge, None to give up.

        An exchange begins with `challenge` None, which asks for the initial response: None where
        the server speaks first. It goes with AUTH if the line has room for it, else behind the
        server's first, empty challenge, for which this is not called (RFC 4954 4, RFC 4422 5.1).
        """


class PlainClient:
    """PLAIN (RFC 4616). It shows the password to whoever listens, and to the server."""

    __slots__ = ("_message",)
    name: Final = "PLAIN"

    def __init__(self, user: str, password: str, *, authorization: str = "") -> None:
        """`authorization` is as whom the client wants to act, `""` as `user`.

        Raises ValueError for a user or password that is empty, and for text that PLAIN cannot
        carry.
        """
        self._message = b"\0".join(
            (
                _octets("authorization", authorization),
                _octets("user", user, needed=True),
                _octets("password", password, needed=True),
            )
        )

    def respond(self, challenge: bytes | None, /) -> bytes | None:
        """The one response; nothing may be asked behind it."""
        return self._message if challenge is None else None


class LoginClient:
    """LOGIN, the obsolete one: user name, then password, each when it is asked for.

    It shows the password as PLAIN does, which is to be preferred.
    """

    __slots__ = ("_answers", "_left")
    name: Final = "LOGIN"

    def __init__(self, user: str, password: str) -> None:
        """Raises ValueError as PlainClient does."""
        self._answers = (
            _octets("password", password, needed=True),
            _octets("user", user, needed=True),
        )
        self._left: list[bytes] = []

    def respond(self, challenge: bytes | None, /) -> bytes | None:
        """One answer after the other, whatever the words of the challenges are."""
        if challenge is None:
            self._left = list(self._answers)
            return None
        return self._left.pop() if self._left else None


class ExternalClient:
    """EXTERNAL (RFC 4422 A): TLS or the socket proves who the client is."""

    __slots__ = ("_message",)
    name: Final = "EXTERNAL"

    def __init__(self, authorization: str = "") -> None:
        """`authorization` is as whom the client wants to act, `""` as whom the server knows it.

        Raises ValueError for text that EXTERNAL cannot carry.
        """
        self._message = _octets("authorization", authorization)

    def respond(self, challenge: bytes | None, /) -> bytes | None:
        """The one response, perhaps empty."""
        return self._message if challenge is None else None


def _octets(what: str, text: str, *, needed: bool = False) -> bytes:
    """`text` as it is sent. Raises ValueError, which does not show it."""
    if needed and not text:
        raise ValueError(f"the {what} is empty")
    if "\0" in text:
        raise ValueError(f"the {what} has a NUL")
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Its exception holds the text.
        raise ValueError(f"the {what} is no Unicode") from None
