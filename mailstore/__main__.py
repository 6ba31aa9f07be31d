"""The command line: `python -m mailstore deliver`.

The invariant: exit code 0 means that the message is on disk; every other says in the words of
sysexits.h whether trying again can help, and a line on standard error says what was wrong.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Final, NoReturn

from lmtp_proto import Address, Mail, PathError, Recipient, Reply, Session, Transaction
from lmtp_proto import parse_mailbox as parse_address

from ._destination import Destination
from ._mailbox_name import NameEncoding
from ._options import DeliveredTo, FolderOptions, TraceOptions
from ._store import MaildirStore

_PIECE: Final = 64 * 1024
_NO_FOLDER: Final = 550
_NOBODY: Final = Address("nobody", "")


class _UsageError(Exception):
    """A command line that cannot be read."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m mailstore", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="deliver")
    deliver = commands.add_parser(
        "deliver",
        help="deliver a message from standard input to a Maildir",
        description="Delivers the message on standard input to a Maildir, durably. The Maildir is"
        " made if it is missing. Fields are put in front only where they are asked for.",
        epilog="Exit codes: 0 it is on disk, 64 wrong flags, 67 there is no such mailbox,"
        " 73 the Maildir cannot be made or is full, 74 standard input cannot be read, 75 it failed"
        " for now: try again.",
        allow_abbrev=False,
    )
    deliver.add_argument("--maildir", metavar="DIR", required=True, help="the user's Maildir")
    deliver.add_argument(
        "--mailbox",
        metavar="NAME",
        default="INBOX",
        help="the mailbox in it (default: INBOX); where there is none, the INBOX gets the message",
    )
    deliver.add_argument("--create", action="store_true", help="make the mailbox if it is missing")
    deliver.add_argument(
        "--subscribe", action="store_true", help="subscribe to a mailbox that was made"
    )
    deliver.add_argument(
        "--refuse", action="store_true", help="fail with code 67 where there is no such mailbox"
    )
    deliver.add_argument(
        "--separator",
        metavar="CHARACTER",
        default=".",
        help="what stands between the levels of NAME (default: .)",
    )
    deliver.add_argument(
        "--utf8", action="store_true", help="names on disk are UTF-8 instead of modified UTF-7"
    )
    deliver.add_argument(
        "--flags",
        metavar="FLAGS",
        default="",
        help="letters: D draft, F flagged, P passed on, R replied, S seen, T trashed",
    )
    deliver.add_argument(
        "--keyword",
        metavar="KEYWORD",
        action="append",
        default=[],
        help="an IMAP keyword; may be given again",
    )
    deliver.add_argument(
        "--sender", metavar="MAILBOX", help="write Return-Path; empty for the null reverse-path"
    )
    deliver.add_argument("--recipient", metavar="MAILBOX", help="write Delivered-To")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (that of the process by default); the exit code."""
    logging.basicConfig(stream=sys.stderr, format="mailstore: %(message)s")
    try:
        arguments = _parser().parse_args(argv)
        sender = _address("--sender", arguments.sender) if arguments.sender else None
        recipient = _address("--recipient", arguments.recipient) if arguments.recipient else None
        folders = FolderOptions(
            separator=arguments.separator,
            encoding=NameEncoding.UTF_8 if arguments.utf8 else NameEncoding.MODIFIED_UTF_7,
            autocreate=arguments.create,
            autosubscribe=arguments.subscribe,
            refuse_missing=arguments.refuse,
        )
        root, maildir = _split(arguments.maildir)
        destination = Destination(
            PurePath(maildir), arguments.mailbox, arguments.flags, tuple(arguments.keyword)
        )
    except (_UsageError, ValueError) as error:
        return _fail(os.EX_USAGE, str(error))
    except SystemExit as exit_:
        # --help is done.
        return int(exit_.code or 0)
    trace = TraceOptions(
        return_path=arguments.sender is not None,
        delivered_to=DeliveredTo.FINAL if recipient else DeliveredTo.NONE,
        received=False,
        hop_limit=0,
    )
    try:
        store = MaildirStore(root, hostname=os.uname().nodename, folders=folders, trace=trace)
    except OSError as error:
        return _fail(
            os.EX_CANTCREAT,
            f"--maildir: {root!r} cannot be opened: {error.strerror}; make that directory first",
        )
    transaction = Transaction(
        session=Session(peer="stdin"),
        id=str(os.getpid()),
        mail=Mail(reverse_path=sender),
        recipients=[Recipient(address=recipient or _NOBODY)],
    )
    try:
        return _deliver(store, transaction, destination)
    finally:
        store.close()


def _split(maildir: str) -> tuple[str, str]:
    """A directory to trust, and the path of the Maildir below it. Raises ValueError."""
    # Whoever calls says where it is, links included.
    path = os.path.realpath(maildir)
    if os.path.isdir(path) and maildir:
        return path, ""
    if not maildir or os.path.exists(path):
        raise ValueError(f"--maildir: {maildir!a} is no directory: name one, or one to be made")
    return os.path.dirname(path), os.path.basename(path)


def _address(flag: str, text: str) -> Address:
    try:
        return parse_address(text)
    except PathError as error:
        raise ValueError(f"{flag}: {text!a}: {error}; write LOCAL-PART@DOMAIN") from None


def _deliver(store: MaildirStore, transaction: Transaction, destination: Destination) -> int:
    (recipient,) = transaction.recipients
    sink = store.open(transaction, {recipient: destination})
    try:
        try:
            while piece := os.read(sys.stdin.fileno(), _PIECE):
                _run(sink.write(piece))
        except OSError as error:
            return _fail(os.EX_IOERR, f"standard input or the spool failed: {error.strerror}")
        answer = sink.deliver(recipient)
        reply = answer() if callable(answer) else answer.result()
    finally:
        sink.close()
    return os.EX_OK if reply.code < 300 else _fail(_code(reply), reply.text)


def _run(job: Callable[[], None] | None) -> None:
    if job is not None:
        job()


def _code(reply: Reply) -> int:
    if reply.code < 500:
        return os.EX_TEMPFAIL
    return os.EX_NOUSER if reply.code == _NO_FOLDER else os.EX_CANTCREAT


def _fail(code: int, fault: str) -> int:
    sys.stderr.write(f"mailstore: {fault}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
