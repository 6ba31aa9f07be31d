"""Threads that wait for the interpreter do not wake each other more often than they need."""

import signal
import subprocess
import sys

import pytest

from lmtp_blocking import SWITCH_INTERVAL
from tests.adapters.harness import Client

# Greets with the interval, and says what it is at the end.
_PROGRAM = """
import sys
import lmtp_blocking
from lmtp_proto import Handler, Reply
from lmtp_sockets import format_address, listen, parse_address

class Greeter(Handler):
    def connect(self, session):
        return Reply(220, f"interval={sys.getswitchinterval():g}")

sys.setswitchinterval(float(sys.argv[1]))
listener = listen(parse_address("127.0.0.1:0"))
print(format_address(listener), flush=True)
lmtp_blocking.serve(Greeter(), listener)
print(f"{sys.getswitchinterval():g}")
"""


@pytest.mark.parametrize(("before", "serving"), [(0.005, SWITCH_INTERVAL), (0.5, 0.5)])
def test_the_interval_is_long_while_serving(before: float, serving: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(before)], stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            with Client(program.stdout.readline().strip()) as client:
                assert client.line().endswith(f" interval={serving}".encode())
            program.send_signal(signal.SIGTERM)
            assert program.stdout.read() == f"{before}\n"
        finally:
            program.kill()
