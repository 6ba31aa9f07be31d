"""The command line: `lmtp-server serve` and its sisters.

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


# What the server runs on, where it is installed.
_LIBRARIES = (
    *("uvloop", "gevent", "pydantic", "pluggy", "prometheus-client", "redis"),
    "opentelemetry-sdk",
)


class _Version(argparse.Action):
    """Looks the versions up only when they are asked for, and imports nothing for it."""

    def __call__(self, parser: argparse.ArgumentParser, *_args: object, **_kwargs: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("lmtp-proto")
        except PackageNotFoundError:
            number = "(version unknown: not installed)"
        lines = [f"lmtp-server {number}", f"Python {sys.version.split()[0]}"]
        for library in _LIBRARIES:
            try:
                lines.append(f"{library} {version(library)}")
            except PackageNotFoundError:
                continue
        sys.stdout.write("\n".join(lines) + "\n")
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
        help="show the versions of server, Python and libraries, and exit",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_send(commands)
    _add_deliver(commands)
    _add_user(commands)
    _add_quota(commands)
    _add_ping(commands)
    _add_who(commands)
    _add_stats(commands)
    _add_config_command(commands)
    _add_completion(commands)
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
    _add_config(serve)


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


def _add_config(command: _Parser) -> None:
    command.add_argument(
        "-c", "--config", metavar="FILE", default=None, help="TOML file with settings"
    )


def _add_deliver(commands: "argparse._SubParsersAction[_Parser]") -> None:
    deliver = commands.add_parser(
        "deliver",
        help="deliver one message to one user",
        description="Delivers the message on standard input, as dovecot-lda does: with the same"
        " flags, and without writing fields in front. A first line 'From ' is left out.",
        epilog="Exit codes: 0 it is on disk, 64 wrong flags, 67 there is no such user, 75 it failed"
        " for now, 77 it is refused, as by a quota. No mail is sent in any case.",
        allow_abbrev=False,
    )
    deliver.add_argument("-d", metavar="USER", dest="user", help="whose mail it is")
    deliver.add_argument("-f", metavar="MAILBOX", dest="sender", help="the sender")
    deliver.add_argument("-a", metavar="MAILBOX", dest="original", help="the original recipient")
    deliver.add_argument("-r", metavar="MAILBOX", dest="recipient", help="the recipient")
    deliver.add_argument("-m", metavar="NAME", dest="mailbox", help="the mailbox (default: INBOX)")
    deliver.add_argument(
        "-e",
        action="store_true",
        dest="explain",
        help="write to standard error why the message is refused, for the sender",
    )
    deliver.add_argument(
        "-p", metavar="PATH", dest="path", help="file with the message, in place of standard input"
    )
    deliver.add_argument(
        "-k",
        action="store_true",
        dest="keep_environment",
        help="keep the environment for programs that are run",
    )
    _add_config(deliver)


def _add_user(commands: "argparse._SubParsersAction[_Parser]") -> None:
    user = commands.add_parser(
        "user",
        help="show what the directory says of a user",
        description="Prints the fields of users, a line for each, as `doveadm user` does.",
        epilog="Exit codes: 0 they exist, 67 one does not, 75 the directory cannot say, 78 wrong"
        " settings.",
        allow_abbrev=False,
    )
    user.add_argument("names", metavar="USER", nargs="+")
    user.add_argument("-f", metavar="FIELD", dest="field", help="print this field alone")
    _add_config(user)


def _add_quota(commands: "argparse._SubParsersAction[_Parser]") -> None:
    quota = commands.add_parser(
        "quota",
        help="show or count anew what a user holds",
        description="Shows what a user holds and may hold (get), or counts it anew (recalc).",
        epilog="Exit codes: 0 done, 67 there is no such user, 75 it failed for now, 78 wrong"
        " settings.",
        allow_abbrev=False,
    )
    quota.add_argument("action", choices=("get", "recalc"))
    quota.add_argument("name", metavar="USER")
    _add_config(quota)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed are seconds above 0")
    return seconds


def _add_ping(commands: "argparse._SubParsersAction[_Parser]") -> None:
    ping = commands.add_parser(
        "ping",
        help="ask a server whether it works",
        description="Has a short session with an LMTP server: LHLO, NOOP, QUIT.",
        epilog="Exit codes: 0 it works, 69 what answers is no LMTP server or refuses, 75 no"
        " answer, 78 wrong flags or settings.",
        allow_abbrev=False,
    )
    ping.add_argument(
        "--to",
        metavar="ADDRESS",
        help="HOST:PORT, [IPV6]:PORT or unix:PATH (default: the first listener of the settings)",
    )
    ping.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=10.0,
        help="how long it all may take (default: 10)",
    )
    _add_config(ping)


def _add_who(commands: "argparse._SubParsersAction[_Parser]") -> None:
    who = commands.add_parser(
        "who",
        help="show the sessions of the running server",
        description="Prints a line for each session that the server has now.",
        epilog="Exit codes: 0 done, 69 the server is not running, 75 not all workers have"
        " answered, 77 only its owner may ask, 78 wrong settings.",
        allow_abbrev=False,
    )
    who.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
    _add_config(who)


def _add_stats(commands: "argparse._SubParsersAction[_Parser]") -> None:
    stats = commands.add_parser(
        "stats",
        help="show what the running server has counted",
        description="Prints the metrics of all workers together, with their rates since the start"
        " or, with --watch, since the last time.",
        epilog="Exit codes: 0 done, 69 the server is not running, 75 no answer, 77 only its owner"
        " may ask, 78 wrong settings.",
        allow_abbrev=False,
    )
    stats.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
    stats.add_argument(
        "--watch",
        metavar="SECONDS",
        type=_seconds,
        nargs="?",
        const=2.0,
        help="print them again and again (default: every 2 seconds)",
    )
    _add_config(stats)


def _add_completion(commands: "argparse._SubParsersAction[_Parser]") -> None:
    completion = commands.add_parser(
        "completion",
        help="print what a shell needs to complete these commands",
        description="Prints a script: 'lmtp-server completion bash >"
        " /usr/share/bash-completion/completions/lmtp-server'.",
        epilog="Exit codes: 0 done, 78 wrong flags, or shtab is not installed.",
        allow_abbrev=False,
    )
    completion.add_argument("shell", choices=["bash", "zsh", "fish"])


def _add_config_command(commands: "argparse._SubParsersAction[_Parser]") -> None:
    config = commands.add_parser(
        "config",
        help="check or show the settings, or make them from Dovecot's",
        description="Checks or shows the settings, or makes a settings file from Dovecot's.",
        allow_abbrev=False,
    )
    actions = config.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check",
        help="say all that is wrong with the settings",
        description="Says all that is wrong with the settings and the certificates that they"
        " name, a line for each fault.",
        epilog="Exit codes: 0 nothing, 78 something is wrong.",
        allow_abbrev=False,
    )
    show = actions.add_parser(
        "show",
        help="print the settings, defaults included",
        description="Prints the settings as a TOML file, with the defaults of what is not set."
        " Secrets are not shown.",
        epilog="Exit codes: 0 done, 78 wrong settings.",
        allow_abbrev=False,
    )
    show.add_argument(
        "--diff", action="store_true", help="only those that differ from the defaults"
    )
    for command in (check, show):
        _add_config(command)
    importing = actions.add_parser(
        "import-dovecot",
        help="print settings made from Dovecot's",
        description="Prints a settings file made from what `doveconf -n` says, of Dovecot 2.3 or"
        " 2.4, and tells on standard error what could not be taken over, and what to do about it.",
        epilog="Exit codes: 0 done, 65 the input is not what doveconf writes, 66 it cannot be"
        " read, 78 wrong flags.",
        allow_abbrev=False,
    )
    importing.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default="-",
        help="what `doveconf -n` said; - is standard input, the default",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (that of the process by default); the exit code."""
    try:
        namespace, unknown = _parser().parse_known_args(argv)
    except _UsageError as error:
        _refuse([str(error)])
        return _usage_code(sys.argv[1:] if argv is None else argv)
    except SystemExit as exit_:
        # --help and --version are done.
        return int(exit_.code or 0)
    arguments = vars(namespace)
    faults = [f"there is no argument {text!r}" for text in unknown]
    try:
        match arguments.pop("command"):
            case "serve":
                return _serve(arguments, faults)
            case "send":
                return _send(arguments, faults)
            case "deliver":
                return _deliver(arguments, faults)
            case "config":
                return _config(arguments, faults)
            case "ping":
                return _ping(arguments, faults)
            case "completion":
                from ._commands._completion import completion

                return _refuse(faults) if faults else completion(_parser(), arguments["shell"])
            case command:
                return _ask(command, arguments, faults)
    except KeyboardInterrupt:
        # As a shell reports it.
        return 130


def _serve(arguments: dict[str, Any], faults: list[str]) -> int:
    if not _has_pydantic():
        return os.EX_CONFIG
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


def _config(arguments: dict[str, Any], faults: list[str]) -> int:
    if not _has_pydantic():
        return os.EX_CONFIG
    from ._commands import _config
    from ._settings import SettingsError, read_settings

    action = arguments["action"]
    if action == "import-dovecot":
        return _refuse(faults) if faults else _config.import_dovecot(arguments["file"])
    try:
        settings = read_settings({}, arguments["config"], faults)
    except SettingsError as error:
        return _refuse(error.faults)
    if action == "show":
        return _config.show(settings, diff=arguments["diff"])
    found = _config.check(settings)
    return _refuse(found) if found else os.EX_OK


def _usage_code(argv: Sequence[str]) -> int:
    """What a wrong command line ends with: an MTA that reads EX_CONFIG from its delivery agent may
    give the mail back, and dovecot-lda says EX_USAGE."""
    return os.EX_USAGE if argv[:1] == ["deliver"] else os.EX_CONFIG


def _deliver(arguments: dict[str, Any], faults: list[str]) -> int:
    if faults:
        _refuse(faults)
        return os.EX_USAGE
    if not _has_pydantic():
        return os.EX_TEMPFAIL
    from ._commands._deliver import Order, deliver
    from ._settings import SettingsError, read_settings

    config = arguments.pop("config")
    try:
        settings = read_settings({}, config)
    except SettingsError as error:
        # Mail is kept until somebody has mended them.
        _refuse(error.faults)
        return os.EX_TEMPFAIL
    return deliver(settings, Order(**arguments))


def _ping(arguments: dict[str, Any], faults: list[str]) -> int:
    if arguments["to"] is not None:
        # Works without what settings need.
        from lmtp_sockets import parse_address

        from ._commands._ping import ping

        try:
            parse_address(arguments["to"])
        except ValueError as error:
            faults.append(f"--to: {error}")
        return _refuse(faults) if faults else ping(arguments["to"], timeout=arguments["timeout"])
    if not _has_pydantic():
        return os.EX_CONFIG
    from ._commands._ping import find_address, ping
    from ._settings import SettingsError, read_settings

    try:
        found = find_address(read_settings({}, arguments["config"], faults))
    except SettingsError as error:
        return _refuse(error.faults)
    if found is None:
        return _refuse(["no listener of the settings can be asked: say --to ADDRESS"])
    address, implicit_tls = found
    return ping(address, timeout=arguments["timeout"], implicit_tls=implicit_tls)


def _ask(command: str, arguments: dict[str, Any], faults: list[str]) -> int:
    """The commands that tell of a user, or of the server."""
    if not _has_pydantic():
        return os.EX_CONFIG
    from ._settings import SettingsError, read_settings

    try:
        settings = read_settings({}, arguments["config"], faults)
    except SettingsError as error:
        return _refuse(error.faults)
    if command == "who":
        from ._commands._who import who

        return who(settings, as_json=arguments["as_json"])
    if command == "stats":
        from ._commands._stats import stats

        return stats(settings, as_json=arguments["as_json"], watch=arguments["watch"])
    if command == "user":
        from ._commands._user import user

        return user(settings, arguments["names"], arguments["field"])
    from ._commands._quota import quota

    return quota(settings, arguments["name"], recalculate=arguments["action"] == "recalc")


def _has_pydantic() -> bool:
    """Whether settings can be read; if not, it is told what to do."""
    try:
        import pydantic  # noqa: F401  # asked for here, where its absence can be explained
    except ImportError:
        _refuse(["pydantic is not installed: pip install 'lmtp-proto[server]'"])
        return False
    return True


def _refuse(faults: list[str]) -> int:
    for fault in faults:
        sys.stderr.write(f"lmtp-server: {fault}\n")
    return os.EX_CONFIG


if __name__ == "__main__":
    sys.exit(main())
