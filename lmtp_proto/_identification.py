"""Who a client is: authentication exchanges (RFC 4954), and what trusted peers say of others.

Nothing here waits or answers: each command gives the reply it deserves, or the credentials that the
handler has to judge first.
"""

from binascii import b2a_base64
from collections.abc import Mapping
from typing import Final

from ._attributes import XCLIENT, XFORWARD
from ._extensions import Extension
from ._handler import Handler, Session, Settings
from ._misuse import lacks, misuse
from ._reply import Reply
from ._sasl import PLAINTEXT, Credentials, Mechanism, SaslError

# RFC 4954 4 and 6.
_NO_MECHANISM: Final = Reply(504, "mechanism not supported", enhanced="5.5.4")
_NEEDS_TLS: Final = Reply(538, "encryption required for this mechanism", enhanced="5.7.11")
_CANCELLED: Final = Reply(501, "authentication cancelled", enhanced="5.7.0")
_ORIGIN_KEPT: Final = Reply(250, "OK", enhanced="2.0.0")
NOT_TRUSTED: Final = Reply(550, "you are not trusted to say so", enhanced="5.7.1")


class Identification:
    """What one session has said of its client, and how it may say it."""

    __slots__ = ("_exchange", "_handler", "_session", "_settings")

    def __init__(self, handler: Handler, session: Session, settings: Settings) -> None:
        self._handler = handler
        self._session = session
        self._settings = settings
        # The exchange that is under way.
        self._exchange: Mechanism | None = None

    def words(self) -> dict[Extension, str]:
        """What stands behind the keywords that are not the same for every client."""
        words = dict(self._settings.keyword_arguments)
        mechanisms = [name for name in self._settings.auth_mechanisms if self._may_use(name)]
        if mechanisms:
            words[Extension.AUTH] = " ".join(mechanisms)
        if self._session.trusted:
            words[Extension.XCLIENT] = " ".join(XCLIENT)
            words[Extension.XFORWARD] = " ".join(XFORWARD)
            words[Extension.XRCPTFORWARD] = ""
        return words

    def _may_use(self, mechanism: str) -> bool:
        """RFC 4954 4: no password in the clear, but on a UNIX socket nobody listens."""
        session = self._session
        return mechanism not in PLAINTEXT or session.tls is not None or session.client_ip is None

    def begin(self, name: str, response: bytes | None) -> Reply | Credentials:
        """AUTH. Raises what a mechanism of the handler's own raises."""
        self._exchange = None
        if name not in self._settings.auth_mechanisms:
            return _NO_MECHANISM
        if not self._may_use(name):
            return _NEEDS_TLS
        mechanism = self._handler.mechanism(self._session, name)
        if mechanism is None:
            return _NO_MECHANISM
        if lacks(mechanism, "respond"):
            raise misuse("mechanism", mechanism, "None or a mechanism")
        return self._step(mechanism, response)

    def go_on(self, response: bytes | None) -> Reply | Credentials:
        """The answer to a challenge; None gives up. Raises as `begin()` does."""
        mechanism, self._exchange = self._exchange, None
        if response is None or mechanism is None:
            return _CANCELLED
        return self._step(mechanism, response)

    def _step(self, mechanism: Mechanism, response: bytes | None) -> Reply | Credentials:
        try:
            step = mechanism.respond(response)
        except SaslError as error:
            return Reply(501, str(error), enhanced="5.5.2")
        if isinstance(step, Credentials):
            return step
        if not isinstance(step, bytes):
            raise misuse("respond", step, "bytes or Credentials")
        self._exchange = mechanism
        return Reply(334, b2a_base64(step, newline=False).decode("ascii"))

    def stand_for(self, attributes: Mapping[str, str | None]) -> Reply | None:
        """XCLIENT: the session is another's from now on. None: greet it anew."""
        session = self._session
        if not session.trusted:
            return NOT_TRUSTED
        session.xclient = {**session.xclient, **attributes}
        address = attributes.get("ADDR")
        if address is not None:
            port = attributes.get("PORT") or "0"
            session.client_ip = address
            session.peer = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        if "LOGIN" in attributes:
            session.user = attributes["LOGIN"]
        name = attributes.get("SESSION")
        if name is not None:
            # It stands in replies and log lines, as one word.
            session.id = "".join(c if "!" <= c <= "~" else "_" for c in name)
        session.lhlo_domain = attributes.get("HELO")
        return None

    def keep_origin(self, attributes: Mapping[str, str | None]) -> Reply:
        """XFORWARD: where the message came from, for logs alone."""
        if not self._session.trusted:
            return NOT_TRUSTED
        self._session.xforward = attributes
        return _ORIGIN_KEPT
