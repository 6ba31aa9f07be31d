"""What the comparison sees, tried on our own server, which every machine has."""

import dataclasses
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.dialogs.handler import SETTINGS
from tests.dialogs.transcript import dialogs, parse
from tests.differential.comparison import Difference, compare, listed, our_server
from tests.differential.replay import Codes, awaited, name, replay


@pytest.fixture(scope="module")
def ours() -> Iterator[dict[str, dict[str, Codes]]]:
    """What our server answers, by dialogue and turn."""
    with our_server() as address:
        yield {
            dialog.name: {
                name(number, turn): codes
                for number, (turn, codes) in enumerate(
                    zip(
                        dialog.turns,
                        replay(address, dialog, [awaited(turn) for turn in dialog.turns]),
                        strict=True,
                    ),
                    1,
                )
            }
            for dialog in dialogs()
        }


def test_a_dialogue_is_replayed_as_it_is_written(ours: dict[str, dict[str, Codes]]) -> None:
    for dialog in dialogs():
        codes = [list(turn) for turn in ours[dialog.name].values()]
        assert [len(turn) for turn in codes] == [awaited(turn) for turn in dialog.turns]
        for turn, said in zip(dialog.turns, codes, strict=True):
            final = [line.text for line in turn.expected if not line.text[3:].startswith(b"-")]
            for text, code in zip(final, said, strict=True):
                assert str(code).startswith(text[:3].decode())


def test_our_side_of_the_list_is_what_we_answer(ours: dict[str, dict[str, Codes]]) -> None:
    for difference in listed().sections:
        assert ours[difference.dialog].get(difference.turn) == difference.ours, str(difference)


def test_the_same_server_does_not_differ() -> None:
    with our_server() as one, our_server() as other:
        assert compare(one, other) == []


def test_other_codes_and_another_number_of_replies_are_seen() -> None:
    limits = dataclasses.replace(SETTINGS.limits, recipients=6)
    with our_server() as one, our_server(dataclasses.replace(SETTINGS, limits=limits)) as other:
        (difference,) = compare(one, other)
        # A difference that is known is not sought longer, and is the same one.
        assert compare(one, other, [difference]) == [difference]
    assert difference.dialog == "rcpt-too-many"
    assert difference.ours == (250, 250, 250, 550, 250, 250, 250, 452, 452, *[250] * 5)
    assert difference.dovecot == (250, 250, 250, 550, 250, 250, 250, 250, 452, *[250] * 6)


@contextmanager
def _saying(*answers: bytes) -> Iterator[str]:
    """A server that gives these answers, each after a read but the first, and then closes."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for answer in answers:
                connection.sendall(answer)
                connection.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


_DIALOG = parse("x", "S: 220\nC: MAIL FROM:<a>\nS: 501\nC: NOOP\nS: 250\n")


def test_a_reply_that_does_not_come_is_missed() -> None:
    with _saying(b"220 x\r\n", b"", b"250-x\r\n250 x\r\n") as address:
        said = replay(address, _DIALOG, [1, 1, 1, 0], patience=1.0)
    assert said == [(220,), (), (250,), ()]


def test_a_reply_too_many_is_seen_at_last() -> None:
    with _saying(b"220 x\r\n", b"501 x\r\n", b"250 x\r\n", b"250 x\r\nnonsense\r\n") as address:
        assert replay(address, _DIALOG, [1, 1, 1, 0]) == [(220,), (501,), (250,), (250, 0)]


def test_a_server_that_accepts_mail_alone_is_brought_back_by_rset() -> None:
    reference = [(220,), (501,), (250,), ()]
    with _saying(b"220 x\r\n", b"250 x\r\n", b"259 reset\r\n", b"250 x\r\n") as address:
        said = replay(address, _DIALOG, [1, 1, 1, 0], reference=reference)
    assert said == [(220,), (250,), (250,), ()]


def test_a_difference_is_written_as_the_list_has_it() -> None:
    difference = Difference("x", '2: "a\\"', (250,), ())
    assert str(difference) == r'{ dialog = "x", turn = "2: \"a\\\"", dovecot = [250], ours = [] },'
