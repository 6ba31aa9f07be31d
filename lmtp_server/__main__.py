"""The command line: `lmtp-server serve` and `lmtp-server send`.

The invariant: nothing is imported before it is known to be needed, so that help is instant; what
is wrong with the command line or the settings is told on standard error, a line for each fault,
and ends in EX_CONFIG.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


class _UsageError(Exception):
    """A command line that cannot be read."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message} (see {self.prog} --help)")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_args: object, **_kwargs: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("lmtp-proto")
        except PackageNotFoundError:
            number = "(version unknown: not installed)"
        sys.stdout.write(f"lmtp-server {number}\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lmtp-server",
        description="Takes mail by LMTP (RFC 2033) and delivers it to Maildirs.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        dest=argparse.SUPPRESS,
        default=argparse.SUPPRESS,
        help="show the version and exit",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="serve|send")
    _add_serve(commands)
    _add_send(commands)
    return parser


def _add_serve(commands: "argparse._SubParsersAction[_Parser]") -> None:
    serve = commands.add_parser(
        "serve",
        help="run the server",
        description="Runs the server until SIGTERM or SIGINT. Each setting is also a key of the"
        " TOML file that --config names, with '_' for '-'; a flag wins over the file.",
        epilog="Exit codes: 0 stopped as told, 70 workers do not start, 78 wrong settings.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    # Values are checked with those of the file, so that all faults are told at once.
    serve.add_argument(
        "--listen",
        metavar="ADDRESS",
        action="append",
        help="HOST:PORT, [IPV6]:PORT or unix:PATH; may be given again"
        " (default: 127.0.0.1:2424 and unix:./lmtp.sock)",
    )
    serve.add_argument(
        "--mail",
        metavar="TEMPLATE",
        help="path of each user's Maildir, with {user} and {domain}"
        " (default: ./mail/{domain}/{user})",
    )
    serve.add_argument(
        "--runtime",
        metavar="asyncio|uvloop|gevent|blocking",
        help="what the workers run on (default: uvloop where it is installed, else asyncio)",
    )
    serve.add_argument(
        "--workers", metavar="N", help="number of worker processes (default: one for each CPU)"
    )
    serve.add_argument(
        "--hostname", metavar="NAME", help="name of this server (default: that of the machine)"
    )
    serve.add_argument(
        "--recipient-delimiter",
        metavar="CHARACTERS",
        help="each of these ends the user name in a local part (default: +)",
    )
    serve.add_argument(
        "--save-to-detail-mailbox",
        action=argparse.BooleanOptionalAction,
        help="mail for user+detail goes to the user's mailbox 'detail', or to the INBOX where"
        " there is none (default: no)",
    )
    serve.add_argument(
        "--mailbox-autocreate",
        action=argparse.BooleanOptionalAction,
        help="make such a mailbox if it is missing (default: no)",
    )
    serve.add_argument(
        "--mailbox-autosubscribe",
        action=argparse.BooleanOptionalAction,
        help="subscribe the user to a mailbox that was made (default: no)",
    )
    serve.add_argument(
        "--drain",
        metavar="SECONDS",
        help="how long deliveries in progress may take when the server stops (default: 30)",
    )
    serve.add_argument("--config", metavar="FILE", default=None, help="TOML file with settings")


def _add_send(commands: "argparse._SubParsersAction[_Parser]") -> None:
    send = commands.add_parser(
        "send",
        help="deliver one message to an LMTP server",
        description="Delivers one message and prints the final reply for each recipient.",
        epilog="Exit codes: 0 all accepted, 75 some failed for now (whatever became of the"
        " others), 69 some failed for good, 76 the server broke the protocol, 66 FILE cannot be"
        " read, 78 wrong flags.",
        allow_abbrev=False,
    )
    send.add_argument(
        "--to", metavar="ADDRESS", required=True, help="HOST:PORT, [IPV6]:PORT or unix:PATH"
    )
    send.add_argument(
        "--from",
        dest="sender",
        metavar="MAILBOX",
        required=True,
        help="the sender; empty for the null reverse-path",
    )
    send.add_argument(
        "--rcpt",
        dest="recipients",
        metavar="MAILBOX",
        action="append",
        required=True,
        help="a recipient; may be given again",
    )
    send.add_argument("file", metavar="FILE", help="the message; - is standard input")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (that of the process by default); the exit code."""
    try:
        namespace, unknown = _parser().parse_known_args(argv)
    except _UsageError as error:
        return _refuse([str(error)])
    except SystemExit as exit_:
        # --help and --version are done.
        return int(exit_.code or 0)
    arguments = vars(namespace)
    faults = [f"there is no argument {text!r}" for text in unknown]
    try:
        if arguments.pop("command") == "serve":
            return _serve(arguments, faults)
        return _send(arguments, faults)
    except KeyboardInterrupt:
        # As a shell reports it.
        return 130


def _serve(arguments: dict[str, Any], faults: list[str]) -> int:
    try:
        import pydantic  # noqa: F401  # asked for here, where its absence can be explained
    except ImportError:
        return _refuse(["pydantic is not installed: pip install 'lmtp-proto[server]'"])
    from ._commands._serve import serve
    from ._settings import SettingsError, read_settings

    config = arguments.pop("config")
    try:
        return serve(lambda: read_settings(arguments, config, faults))
    except SettingsError as error:
        return _refuse(error.faults)


def _send(arguments: dict[str, Any], faults: list[str]) -> int:
    from ._commands._send import InputError, read_envelope, send

    envelope = read_envelope(arguments["to"], arguments["sender"], arguments["recipients"], faults)
    if envelope is None:
        return _refuse(faults)
    try:
        return send(envelope, arguments["file"])
    except InputError as error:
        sys.stderr.write(f"lmtp-server: {error}\n")
        return os.EX_NOINPUT


def _refuse(faults: list[str]) -> int:
    for fault in faults:
        sys.stderr.write(f"lmtp-server: {fault}\n")
    return os.EX_CONFIG


if __name__ == "__main__":
    sys.exit(main())
