"""The client that waits in its thread."""

from lmtp_sockets import THREAD
from lmtp_transport import SocketClient


class Client(SocketClient):
    """`lmtp_transport.SocketClient`, which says all about it, waiting in its thread."""

    waiting = THREAD
