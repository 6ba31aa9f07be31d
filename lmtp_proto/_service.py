"""What the sessions of one server share, whatever it runs on."""

from collections.abc import Callable, Generator
from dataclasses import replace

from ._conversation import StopFlag, converse
from ._effects import Effect
from ._extensions import Extension
from ._handler import Handler, Session, Settings
from ._limits import Limits


class Service:
    """Makes the conversations of a server's connections.

    `handler` decides for all of them. `settings` None are the defaults. Raises ValueError for
    settings with STARTTLS, which is offered where there is a certificate.
    """

    __slots__ = ("_handler", "_offers", "stop_flag")

    def __init__(self, handler: Handler, settings: Settings | None) -> None:
        settings = settings or Settings()
        if Extension.STARTTLS in settings.extensions:
            raise ValueError(
                "STARTTLS is offered by listeners that have TLS: leave it out of the extensions"
            )
        self._handler = handler
        # Without and with STARTTLS.
        self._offers = tuple(
            (offer, offer.parser())
            for offer in (
                settings,
                replace(settings, extensions=settings.extensions | {Extension.STARTTLS}),
            )
        )
        self.stop_flag = StopFlag()
        """Set to end all sessions at their next command, or when they rest."""

    @property
    def limits(self) -> Limits:
        """The limits of all sessions."""
        return self._offers[0][0].limits

    def converse(
        self, session: Session, clock: Callable[[], float], *, starttls: bool = False
    ) -> Generator[Effect, None, None]:
        """The conversation with a new client; see `converse()`.

        `starttls`: the runtime performs the `Handshake` effect.
        """
        settings, parser = self._offers[starttls]
        return converse(
            self._handler, session, settings, parser=parser, clock=clock, stop=self.stop_flag
        )
