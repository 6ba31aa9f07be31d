"""Replies: what can be made, what goes on the wire, and how a client reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto import RemoteProtocolError, Reply
from lmtp_proto._reply import ReplyReader


class TestReply:
    @pytest.mark.parametrize(
        ("reply", "wire"),
        [
            (Reply(250, "saved", enhanced="2.0.0"), b"250 2.0.0 saved\r\n"),
            (Reply(250, "saved"), b"250 2.0.0 saved\r\n"),
            (Reply(451, "later"), b"451 4.0.0 later\r\n"),
            (Reply(550, "no", enhanced="5.1.1"), b"550 5.1.1 no\r\n"),
            (Reply(354, "go"), b"354 go\r\n"),
            (Reply(220, "host", enhanced=""), b"220 host\r\n"),
            (Reply(250, "a", "b", "c", enhanced=""), b"250-a\r\n250-b\r\n250 c\r\n"),
            (Reply(250, "a", "b"), b"250-2.0.0 a\r\n250 2.0.0 b\r\n"),
            (Reply(250), b"250 2.0.0 \r\n"),
            (Reply(550, "x", enhanced="5.999.999"), b"550 5.999.999 x\r\n"),
        ],
    )
    def test_wire(self, reply: Reply, wire: bytes) -> None:
        assert reply.wire == wire
        assert bytes(reply) == wire

    @pytest.mark.parametrize("code", [-1, 0, 99, 100, 199, 600, 1000])
    def test_no_such_code(self, code: int) -> None:
        with pytest.raises(ValueError, match=r"5321 4\.2\.1"):
            Reply(code, "x")

    @pytest.mark.parametrize(
        ("code", "enhanced"),
        [
            (250, "5.0.0"),
            (550, "2.0.0"),
            (451, "5.1.1"),
            (354, "3.0.0"),
            (250, "2"),
            (250, "2.0"),
            (250, "2.0.0.0"),
            (250, "2.1000.0"),
            (250, "2.0.x"),
            (250, "2.0.0 "),
            (250, "2.0.0\r\n"),
            (250, "2.\u0663.1"),
        ],
    )
    def test_no_such_enhanced_status_code(self, code: int, enhanced: str) -> None:
        with pytest.raises(ValueError, match="3463"):
            Reply(code, "x", enhanced=enhanced)

    @pytest.mark.parametrize("text", ["a\r\nb", "a\nb", "\x00", "\x7f", "ü", "\u2028", "\ud800"])
    def test_no_text_breaks_the_line(self, text: str) -> None:
        for lines in ([text], [text, "b"], ["a", text]):
            wire = Reply(250, *lines).wire
            assert wire.endswith(b"\r\n")
            sent = wire[:-2].split(b"\r\n")
            assert len(sent) == len(lines)
            assert all(32 <= octet < 127 for line in sent for octet in line)

    @pytest.mark.parametrize("enhanced", ["", "2.0.0", "2.100.100"])
    @pytest.mark.parametrize("length", [480, 490, 496, 505, 506, 507, 600, 100_000])
    def test_a_line_has_512_octets_at_most(self, enhanced: str, length: int) -> None:
        # RFC 5321 4.5.3.1.5.
        wire = Reply(250, "x" * length, "y", enhanced=enhanced).wire
        first = wire.split(b"\r\n")[0] + b"\r\n"
        head = len("250-") + (len(enhanced) + 1 if enhanced else 0)
        assert len(first) == min(512, head + length + 2)

    def test_what_it_tells(self) -> None:
        reply = Reply(550, "one", "two", enhanced="5.1.1")
        assert (reply.code, reply.enhanced, reply.lines) == (550, "5.1.1", ("one", "two"))
        assert reply.text == "one\ntwo"
        assert not reply.accepted
        assert Reply(354).accepted
        assert Reply(399).accepted
        assert not Reply(400).accepted
        assert str(Reply(550, "no", enhanced="5.1.1")) == "550 5.1.1 no"
        assert "550 5.1.1" in repr(reply)

    def test_equality(self) -> None:
        assert Reply(250, "a") == Reply(250, "a", enhanced="2.0.0")
        assert hash(Reply(250, "a")) == hash(Reply(250, "a", enhanced="2.0.0"))
        assert Reply(250, "a") != Reply(250, "b")
        assert Reply(250, "a") != Reply(251, "a")
        assert Reply(250, "a") != Reply(250, "a", enhanced="")
        assert Reply(250, "a") != "250 2.0.0 a"

    @given(st.integers(200, 599), st.lists(st.text(), min_size=1, max_size=4))
    def test_whatever_the_text_the_lines_are_well_formed(self, code: int, lines: list[str]) -> None:
        wire = Reply(code, *lines).wire
        parts = wire.split(b"\r\n")
        assert parts.pop() == b""
        assert len(parts) == len(lines)
        for number, part in enumerate(parts, 1):
            assert part.startswith(b"%d%c" % (code, b" -"[number != len(parts)]))
            assert len(part) <= 510


class TestReader:
    @staticmethod
    def read(*lines: bytes, limit: int = 1000) -> Reply:
        reader = ReplyReader(limit)
        *first, last = lines
        for line in first:
            assert reader.add(line) is None
        reply = reader.add(last)
        assert reply is not None
        return reply

    @pytest.mark.parametrize(
        ("lines", "reply"),
        [
            ((b"250 ok",), Reply(250, "ok", enhanced="")),
            ((b"250 2.1.5 ok",), Reply(250, "ok", enhanced="2.1.5")),
            ((b"250",), Reply(250, "", enhanced="")),
            ((b"250 ",), Reply(250, "", enhanced="")),
            ((b"250 2.0.0",), Reply(250, "", enhanced="2.0.0")),
            ((b"299 odd",), Reply(299, "odd", enhanced="")),
            ((b"599 odd",), Reply(599, "odd", enhanced="")),
            ((b"250-a", b"250-b", b"250 c"), Reply(250, "a", "b", "c", enhanced="")),
            ((b"550-5.1.1 a", b"550 5.1.1 b"), Reply(550, "a", "b", enhanced="5.1.1")),
            ((b"550-5.1.1 a", b"550 b"), Reply(550, "a", "b", enhanced="5.1.1")),
            ((b"550-5.1.1 a", b"550 5.1.10 b"), Reply(550, "a", "5.1.10 b", enhanced="5.1.1")),
            # A status of another class belongs to the text.
            ((b"250 5.1.1 a",), Reply(250, "5.1.1 a", enhanced="")),
            ((b"250 2.0.0x a",), Reply(250, "2.0.0x a", enhanced="")),
            (("250 grüß".encode(),), Reply(250, "grüß", enhanced="")),
            ((b"250 \xff",), Reply(250, "\ufffd", enhanced="")),
            (("250 2.\u0663.0 ok".encode(),), Reply(250, "2.\u0663.0 ok", enhanced="")),
        ],
    )
    def test_reads(self, lines: tuple[bytes, ...], reply: Reply) -> None:
        assert self.read(*lines) == reply

    @pytest.mark.parametrize(
        "line",
        [
            *(b"", b"25", b"25 ok", b"2500 ok", b"250_ok", b"ok", b" 250 ok", b"150 ok", b"600 ok"),
            *(b"250\tok", b"2\xb25 ok", b"\xff\xff\xff", b"HTTP/1.1 200 OK"),
        ],
    )
    def test_what_is_no_reply_line(self, line: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            ReplyReader(1000).add(line)

    def test_codes_of_one_reply_are_equal(self) -> None:
        reader = ReplyReader(1000)
        reader.add(b"250-a")
        with pytest.raises(RemoteProtocolError, match="251"):
            reader.add(b"251 b")

    def test_two_replies(self) -> None:
        reader = ReplyReader(12)
        for _ in range(3):
            assert reader.add(b"250-aa") is None
            assert reader.add(b"250 bb") == Reply(250, "aa", "bb", enhanced="")

    def test_the_size_of_a_reply_is_bounded(self) -> None:
        reader = ReplyReader(100)
        for _ in range(10):
            reader.add(b"250-567890")
        with pytest.raises(RemoteProtocolError, match="100 octets"):
            reader.add(b"250 567890")

    def test_empty_lines_count_too(self) -> None:
        reader = ReplyReader(1000)
        for _ in range(250):
            reader.add(b"250-")
        with pytest.raises(RemoteProtocolError, match="1000 octets"):
            reader.add(b"250-")

    @given(st.binary(max_size=40))
    def test_any_line_is_a_reply_or_refused(self, line: bytes) -> None:
        try:
            reply = ReplyReader(1000).add(line)
        except RemoteProtocolError:
            return
        assert reply is None or 200 <= reply.code <= 599

    @given(st.text(max_size=30))
    def test_any_text_behind_a_code(self, text: str) -> None:
        for code in (b"250 ", b"451 ", b"550 "):
            ReplyReader(1000).add(code + text.encode("utf-8", "surrogatepass"))

    @given(
        st.integers(200, 599),
        st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126)), min_size=1),
    )
    def test_what_is_written_is_read(self, code: int, lines: list[str]) -> None:
        if code // 100 == 3:
            lines = [f"x{line}" for line in lines]
        reply = Reply(code, *(line[:400] for line in lines))
        reader = ReplyReader(100_000)
        read = [reader.add(line) for line in reply.wire.split(b"\r\n")[:-1]]
        assert read[:-1] == [None] * (len(lines) - 1)
        assert read[-1] == reply


def test_a_challenge_may_be_longer_than_other_lines() -> None:
    # RFC 4954 4: up to 12,288 octets with CRLF.
    assert Reply(334, "Q" * 12_282).wire == b"334 " + b"Q" * 12_282 + b"\r\n"
    assert len(Reply(334, "Q" * 13_000).wire) == 12_288
    assert len(Reply(250, "Q" * 13_000).wire) == 512
