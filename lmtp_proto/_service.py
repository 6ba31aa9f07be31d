"""What the sessions of one server share, whatever it runs on."""

from collections.abc import Callable, Generator

from ._conversation import StopFlag, converse
from ._effects import Effect
from ._extensions import Extension
from ._handler import Handler, Session, Settings


class Service:
    """Makes the conversations of a server's connections.

    `handler` decides for all of them. `settings` None are the defaults. `performs_handshake` says
    that the runtime performs the `Handshake` effect. Raises ValueError for settings that offer
    STARTTLS where it does not.
    """

    __slots__ = ("_handler", "_parser", "_settings", "stop_flag")

    def __init__(
        self, handler: Handler, settings: Settings | None, *, performs_handshake: bool = False
    ) -> None:
        self._handler = handler
        self._settings = settings or Settings()
        if Extension.STARTTLS in self._settings.extensions and not performs_handshake:
            raise ValueError("this runtime has no TLS: leave STARTTLS out of the extensions")
        self._parser = self._settings.parser()
        self.stop_flag = StopFlag()
        """Set to end all sessions at their next command."""

    def converse(
        self, peer: str, client_ip: str | None, clock: Callable[[], float]
    ) -> Generator[Effect, None, None]:
        """The conversation with a new client; see `converse()` and `Session`."""
        return converse(
            self._handler,
            Session(peer=peer, client_ip=client_ip),
            self._settings,
            parser=self._parser,
            clock=clock,
            stop=self.stop_flag,
        )
