"""`python -m tests.packaging.image`: the built image, run as its users run it.

Takes an image that packaging/Dockerfile was built into, and a program such as podman or docker,
with its options. Port 2424 of 127.0.0.1 must be free, for the container has the network of this
machine.

The invariant: container and volume have names of their own, and are gone afterwards.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from lmtp_blocking import Client
from lmtp_proto import Recipient, parse_mailbox

_HARDENED: Final = (
    *("--read-only", "--tmpfs", "/tmp"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
_ADDRESS: Final = "127.0.0.1:2424"
_SECONDS: Final = 60.0
_SENDERS: Final = 4
_MESSAGES: Final = 200


def main() -> int:
    """Run it both ways; an AssertionError if something is not so."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.packaging.image",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--image", default="lmtp-server", help="its name (default: lmtp-server)")
    parser.add_argument("--program", default="podman", help="with options (default: podman)")
    parser.add_argument("--options", default="", help="of its command run, for this machine")
    arguments = parser.parse_args()
    program = shlex.split(arguments.program)
    for options in ((), _HARDENED):
        stored = try_image(program, arguments.image, (*shlex.split(arguments.options), *options))
        sys.stdout.write(f"ok with {' '.join(options) or 'no options'}: {stored} messages\n")
        sys.stdout.flush()
    return 0


def try_image(program: Sequence[str], image: str, options: Sequence[str]) -> int:
    """Start the image, deliver, stop it amid the mail; how many messages there are."""
    name = f"lmtp-{uuid.uuid4().hex}"

    def tell(*command: str) -> str:
        return _run(*program, *command)

    command = ("run", "--detach", "--name", name, "--network=host", "-v", f"{name}:/var/vmail")
    with tempfile.TemporaryDirectory(prefix="lmtp-image-") as folder:
        message = Path(folder) / "message"
        message.write_text("Subject: hello\n\nworld\n")
        try:
            tell(*command, *options, image)
            deadline = time.monotonic() + _SECONDS
            while _send(message, "first"):
                assert time.monotonic() < deadline, tell("logs", name)
                time.sleep(0.1)
            status = tell("exec", name, "cat", "/proc/1/status").split("\n")
            assert "Uid:\t5000\t5000\t5000\t5000" in status
            assert "Gid:\t5000\t5000\t5000\t5000" in status
            assert f"CapEff:\t{0:016x}" in status
            (settings,) = json.loads(tell("inspect", image))
            # Docker has it in the one place, podman in the other.
            check = settings["Config"].get("Healthcheck") or settings["Healthcheck"]
            health: list[str] = check["Test"]
            assert health[0] == "CMD"
            tell("exec", name, *health[1:])
            accepted = 1 + _stop_under_load(lambda: tell("stop", "--time", "40", name), message)
            (container,) = json.loads(tell("inspect", name))
            state: dict[str, Any] = container["State"]
            assert (state["Running"], state["ExitCode"]) == (False, 0), state
            (volume,) = json.loads(tell("volume", "inspect", name))
            mail = Path(volume["Mountpoint"], "example.org")
            stored = [path.stat() for path in mail.glob("*/new/*")]
            assert len(stored) == accepted, (len(stored), accepted)
            assert {(status.st_uid, status.st_gid) for status in stored} == {(5000, 5000)}
            return accepted
        finally:
            for clearing in (("rm", "--force", name), ("volume", "rm", "--force", name)):
                subprocess.run([*program, *clearing], capture_output=True, check=False)


def _stop_under_load(stop: Callable[[], object], message: Path) -> int:
    """Call `stop` while mail is delivered, until none is taken; how many messages were accepted."""
    accepted: list[str] = []

    def deliver(user: str) -> None:
        recipient = Recipient(address=parse_mailbox(f"{user}@example.org"))
        content = message.read_bytes().replace(b"\n", b"\r\n")
        with Client(_ADDRESS) as client:
            while True:
                (result,) = client.submit(None, [recipient], [content])
                if not result.reply.accepted:
                    break
                accepted.append(user)

    threads = [threading.Thread(target=deliver, args=(f"user{n}",)) for n in range(_SENDERS)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _SECONDS
    while len(accepted) < _MESSAGES and time.monotonic() < deadline:
        time.sleep(0.01)
    stop()
    for thread in threads:
        thread.join()
    assert len(accepted) > _MESSAGES
    return len(accepted)


def _send(message: Path, user: str) -> int:
    command = [sys.executable, "-m", "lmtp_server", "send", "--to", _ADDRESS, "--from", "a@b.c"]
    command += ["--rcpt", f"{user}@example.org", str(message)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


if __name__ == "__main__":
    sys.exit(main())
