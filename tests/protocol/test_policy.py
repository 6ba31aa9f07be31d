"""The content policy: against a reference that looks at one octet at a time, and in both roles."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtp_proto import (
    NEED_DATA,
    Address,
    Bdat,
    Body,
    ClientConnection,
    Command,
    Content,
    ContentPolicy,
    Data,
    EndOfContent,
    Extension,
    Handler,
    Lhlo,
    Limits,
    LocalProtocolError,
    Mail,
    MailParameters,
    Message,
    Rcpt,
    Recipient,
    Reply,
    ServerConnection,
    Settings,
    Signal,
    State,
    Treatment,
)
from lmtp_proto._policy import PolicyFilter
from tests.protocol.driver import Driver
from tests.protocol.splits import restored, state, strings_in_all_splits

_KEEP, _REJECT, _NORMALISE = Treatment.KEEP, Treatment.REJECT, Treatment.NORMALISE
_STRICT = ContentPolicy(bare_cr=_REJECT, bare_lf=_REJECT, nul=_REJECT, long_line=_REJECT)
_NORMAL = ContentPolicy(bare_cr=_NORMALISE, bare_lf=_NORMALISE, nul=_NORMALISE)
_COMBINATIONS = [
    ContentPolicy(bare_cr=bare_cr, bare_lf=bare_lf, nul=nul)
    for bare_cr, bare_lf, nul in itertools.product(Treatment, repeat=3)
]

_BARE_CR = "bare CR in the content: its lines end with CRLF"
_BARE_LF = "bare LF in the content: its lines end with CRLF"
_NUL = "NUL in the content"
_LONG = "a line of the content has more than 1000 octets"

_Outcome = tuple[bytes, str | None]


def _reference(policy: ContentPolicy, octets: bytes) -> _Outcome:
    """What is let through, and why the rest is refused: octet by octet, the whole at hand."""
    out = b""
    column = 0
    place = 0
    while place < len(octets):
        found = octets[place : place + 1]
        treatment, reason, allowed = _KEEP, "", found
        if octets.startswith(b"\r\n", place):
            found = allowed = b"\r\n"
        elif found == b"\r":
            treatment, reason, allowed = policy.bare_cr, _BARE_CR, b" "
        elif found == b"\n":
            treatment, reason, allowed = policy.bare_lf, _BARE_LF, b"\r\n"
        elif found == b"\0":
            treatment, reason, allowed = policy.nul, _NUL, b" "
        place += len(found)
        if treatment is _REJECT:
            return out, reason
        if treatment is _NORMALISE:
            found = allowed
        for octet in found:
            column += 1
            ends = found == b"\r\n" and octet == 10
            if policy.long_line is _REJECT and column == policy.line_length and not ends:
                return out, _LONG
            out += bytes([octet])
            if ends:
                column = 0
    return out, None


# What a filter knows, and what it has let through.
_Fed = tuple[tuple[object, ...], bytes]


def _filter(policy: ContentPolicy, pieces: Iterable[bytes]) -> _Outcome:
    checked = PolicyFilter(policy)
    return _finished(checked, b"".join(map(checked.feed, pieces)))


def _finished(checked: PolicyFilter, out: bytes) -> _Outcome:
    """The outcome of a content that is complete, of which `out` was let through so far."""
    out += checked.finish()
    assert checked.finish() == b""
    refusal = checked.refusal
    if refusal is None:
        return out, None
    assert (refusal.code, refusal.enhanced) == (554, "5.6.0")
    return out, refusal.text


def _strings(alphabet: Sequence[bytes], length: int) -> Iterator[bytes]:
    return map(b"".join, itertools.product(alphabet, repeat=length))


class TestPolicy:
    def test_all_is_kept_unless_told_otherwise(self) -> None:
        assert ContentPolicy().keeps_all
        assert Settings().content_policy == ContentPolicy()

    @pytest.mark.parametrize(
        "policy",
        [
            ContentPolicy(bare_cr=_REJECT),
            ContentPolicy(bare_lf=_NORMALISE),
            ContentPolicy(nul=_REJECT),
            ContentPolicy(long_line=_REJECT),
        ],
    )
    def test_not_all_is_kept(self, policy: ContentPolicy) -> None:
        assert not policy.keeps_all

    def test_a_long_line_is_not_folded(self) -> None:
        with pytest.raises(ValueError, match="long_line is NORMALISE; KEEP or REJECT"):
            ContentPolicy(long_line=_NORMALISE)

    def test_a_line_that_every_server_takes_is_taken(self) -> None:
        with pytest.raises(ValueError, match="line_length is 999; at least 1000"):
            ContentPolicy(line_length=999)

    def test_without_changes_normalise_is_reject(self) -> None:
        policy = ContentPolicy(bare_cr=_NORMALISE, nul=_NORMALISE, line_length=2000)
        assert policy.without_changes() == ContentPolicy(
            bare_cr=_REJECT, nul=_REJECT, line_length=2000
        )


class TestFilter:
    @pytest.mark.parametrize(
        ("policy", "octets", "outcome"),
        [
            (ContentPolicy(bare_lf=_REJECT), b"a\rb\nc", (b"a\rb", _BARE_LF)),
            (ContentPolicy(bare_cr=_REJECT), b"a\nb\rc", (b"a\nb", _BARE_CR)),
            (ContentPolicy(bare_lf=_NORMALISE), b"a\rb\nc\r\n", (b"a\rb\r\nc\r\n", None)),
            (ContentPolicy(bare_cr=_NORMALISE), b"a\nb\rc\r\n", (b"a\nb c\r\n", None)),
            (ContentPolicy(nul=_NORMALISE), b"\r\0\n", (b"\r \n", None)),
            # What stands first is what is told.
            (_STRICT, b"a\0b\nc\rd", (b"a", _NUL)),
            (_STRICT, b"a\rb\nc\0d", (b"a", _BARE_CR)),
            (_STRICT, b"a\nb\0c\rd", (b"a", _BARE_LF)),
            (_STRICT, b"x" * 1000, (b"x" * 999, _LONG)),
        ],
    )
    def test_examples(self, policy: ContentPolicy, octets: bytes, outcome: _Outcome) -> None:
        assert _filter(policy, [octets]) == outcome
        assert _filter(policy, [bytes((octet,)) for octet in octets]) == outcome
        assert _reference(policy, octets) == outcome

    @pytest.mark.exhaustive
    @pytest.mark.parametrize(
        ("policy", "length"),
        [
            *((policy, 5) for policy in _COMBINATIONS),
            *((policy, 6) for policy in (_STRICT, _NORMAL, ContentPolicy(bare_cr=_NORMALISE))),
        ],
    )
    def test_every_string_in_every_split(self, policy: ContentPolicy, length: int) -> None:
        def step(before: _Fed, piece: bytes) -> _Fed:
            checked = restored(PolicyFilter(policy), before[0])
            fed = before[1] + checked.feed(piece)
            return state(checked), fed

        start: _Fed = (state(PolicyFilter(policy)), b"")
        strings = strings_in_all_splits((b"\r", b"\n", b"\0", b".", b"a"), length, start, step)
        for octets, outcomes in strings:
            assert outcomes.total() == 2 ** (len(octets) - 1)
            expected = _reference(policy, octets)
            for values, fed in outcomes:
                checked = restored(PolicyFilter(policy), values)
                assert _finished(checked, fed) == expected, octets

    @pytest.mark.exhaustive
    @pytest.mark.parametrize("before", [b"x" * 996, b"x\r\n" + b"x" * 996, b"\n" + b"x" * 995])
    @pytest.mark.parametrize(
        "policy",
        [
            _STRICT,
            ContentPolicy(long_line=_REJECT),
            ContentPolicy(long_line=_REJECT, bare_cr=_NORMALISE, bare_lf=_NORMALISE),
            ContentPolicy(long_line=_REJECT, bare_cr=_REJECT),
        ],
    )
    def test_lines_about_as_long_as_allowed(self, policy: ContentPolicy, before: bytes) -> None:
        for length in range(1, 6):
            for octets in _strings((b"\r", b"\n", b"a"), length):
                expected = _reference(policy, before + octets)
                assert _filter(policy, [before + octets]) == expected
                assert _filter(policy, [before, *(bytes([n]) for n in octets)]) == expected
                assert _filter(policy, [before + octets[:3], octets[3:]]) == expected

    @pytest.mark.exhaustive
    @pytest.mark.parametrize("size", [1, 7, 1000, 4096])
    def test_many_lines_of_every_length(self, size: int) -> None:
        content = b"".join(b"x" * length + b"\r\n" for length in (*range(999), 998, 0, 998))
        policy = ContentPolicy(long_line=_REJECT)
        pieces = [content[n : n + size] for n in range(0, len(content), size)]
        assert _filter(policy, pieces) == (content, None)
        assert _filter(policy, [*pieces, b"x" * 1000]) == (content + b"x" * 999, _LONG)

    def test_a_longer_line_where_the_limit_allows_it(self) -> None:
        policy = ContentPolicy(long_line=_REJECT, line_length=1001)
        assert _filter(policy, [b"x" * 999 + b"\r\n"]) == (b"x" * 999 + b"\r\n", None)

    @given(st.data())
    def test_any_octets_in_any_split(self, data: st.DataObject) -> None:
        policy = data.draw(st.sampled_from([*_COMBINATIONS, _STRICT]))
        parts = st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b".", b"a", b"\xff", b"x" * 500])
        octets = b"".join(data.draw(st.lists(parts, max_size=40)))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=8)))
        pieces = [octets[a:b] for a, b in itertools.pairwise([0, *cuts, len(octets)])]
        assert _filter(policy, pieces) == _reference(policy, octets)

    def test_nothing_follows_a_refusal(self) -> None:
        checked = PolicyFilter(_STRICT)
        assert checked.feed(b"a\nb") == b"a"
        assert checked.feed(b"c\r\n") == b""
        assert checked.finish() == b""

    @pytest.mark.parametrize("octet", [b"\r", b"\n", b"\0", b"a"])
    def test_a_content_of_one_octet_over_and_over(self, octet: bytes) -> None:
        octets = octet * 3000
        for policy in (_STRICT, _NORMAL):
            assert _filter(policy, [octets]) == _reference(policy, octets)


class _Store(Handler):
    """Keeps what is delivered."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    def deliver(self, message: Message, recipient: Recipient, /) -> Reply:
        self.contents.append(message.content)
        return Reply(250, f"for {recipient}")


_EXTENSIONS = Settings().extensions | {Extension.BINARYMIME}
_ENVELOPE = b"MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"


def _server(
    policy: ContentPolicy | None = None, limits: Limits | None = None
) -> tuple[_Store, Driver]:
    store = _Store()
    driver = Driver(
        store,
        Settings(
            content_policy=policy or ContentPolicy(),
            extensions=_EXTENSIONS,
            limits=limits or Limits(),
        ),
    )
    driver.receive(b"LHLO x\r\n")
    driver.writes.clear()
    return store, driver


def _replies(driver: Driver, octets: bytes) -> list[str]:
    driver.writes.clear()
    driver.receive(octets)
    return driver.output.decode().splitlines()


_BAD = [
    (b"a\rb\r\n", _BARE_CR),
    (b"a\r\r\n", _BARE_CR),
    (b"a\nb\r\n", _BARE_LF),
    (b"\n\r\n", _BARE_LF),
    (b"a\0b\r\n", _NUL),
    (b"x" * 999 + b"\r\n", _LONG),
]


class TestServer:
    @pytest.mark.parametrize(("content", "reason"), _BAD)
    def test_data_is_refused_for_every_recipient(self, content: bytes, reason: str) -> None:
        store, driver = _server(_STRICT)
        replies = _replies(driver, _ENVELOPE + b"DATA\r\n" + content + b"NOOP\r\n.\r\nNOOP\r\n")
        assert replies[3:] == [
            "354 end with a dot on a line of its own",
            f"554 5.6.0 {reason}",
            f"554 5.6.0 {reason}",
            "250 2.0.0 OK",
        ]
        assert store.contents == []

    @pytest.mark.parametrize(("content", "reason"), _BAD)
    def test_bdat_has_the_same_answer(self, content: bytes, reason: str) -> None:
        store, driver = _server(_STRICT)
        chunk = b"BDAT %d LAST\r\n" % len(content) + content
        replies = _replies(driver, _ENVELOPE + chunk + b"NOOP\r\n")
        assert replies[3:] == [f"554 5.6.0 {reason}", f"554 5.6.0 {reason}", "250 2.0.0 OK"]
        assert store.contents == []

    def test_a_chunk_that_is_not_the_last_is_refused_at_its_end(self) -> None:
        _, driver = _server(_STRICT)
        replies = _replies(driver, _ENVELOPE + b"BDAT 2\r\n\nxBDAT 1 LAST\r\nxRSET\r\n")
        assert replies[3] == f"554 5.6.0 {_BARE_LF}"
        assert [reply[:3] for reply in replies[4:]] == ["503", "250"]

    def test_the_next_transaction_begins_anew(self) -> None:
        store, driver = _server(_STRICT)
        driver.receive(_ENVELOPE + b"BDAT 1\r\n\rRSET\r\n")
        driver.receive(_ENVELOPE + b"DATA\r\n\na\r\n.\r\n")
        replies = _replies(driver, _ENVELOPE + b"DATA\r\na\r\n.\r\n")
        assert [reply[:3] for reply in replies[-2:]] == ["250", "250"]
        assert store.contents == [b"a\r\n"] * 2

    @pytest.mark.parametrize(("content", "_"), _BAD)
    def test_everything_is_kept_unless_told_otherwise(self, content: bytes, _: str) -> None:
        store, driver = _server()
        driver.receive(_ENVELOPE + b"DATA\r\n" + content + b".\r\n")
        driver.receive(_ENVELOPE + b"BDAT %d LAST\r\n" % len(content) + content)
        assert store.contents == [content] * 4

    @pytest.mark.parametrize("policy", [_STRICT, _NORMAL])
    def test_binary_content_is_left_alone(self, policy: ContentPolicy) -> None:
        store, driver = _server(policy)
        content = b"\0a\nb\r" + b"x" * 2000
        driver.receive(
            b"MAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<a@example.org>\r\n"
            b"BDAT %d LAST\r\n" % len(content) + content
        )
        assert store.contents == [content]

    def test_a_line_end_may_lie_across_chunks(self) -> None:
        store, driver = _server(_STRICT)
        driver.receive(_ENVELOPE + b"BDAT 2\r\na\rBDAT 2\r\n\nbBDAT 2 LAST\r\n\r\n")
        assert store.contents == [b"a\r\nb\r\n"] * 2

    @pytest.mark.parametrize("chunks", [b"BDAT 2 LAST\r\na\r", b"BDAT 2\r\na\rBDAT 0 LAST\r\n"])
    def test_a_cr_that_ends_the_content(self, chunks: bytes) -> None:
        store, driver = _server(ContentPolicy(nul=_REJECT))
        driver.receive(_ENVELOPE + chunks)
        assert store.contents == [b"a\r"] * 2
        store, driver = _server(_NORMAL)
        driver.receive(_ENVELOPE + chunks)
        assert store.contents == [b"a "] * 2
        store, driver = _server(_STRICT)
        assert _replies(driver, _ENVELOPE + chunks)[-1] == f"554 5.6.0 {_BARE_CR}"
        assert store.contents == []

    def test_normalised_content_is_what_is_delivered(self) -> None:
        store, driver = _server(_NORMAL)
        driver.receive(_ENVELOPE + b"DATA\r\na\n.\nb\rc\0d\r\n..\r\r\n.\r\n")
        assert store.contents == [b"a\r\n.\r\nb c d\r\n. \r\n"] * 2

    def test_the_limit_is_for_what_was_sent(self) -> None:
        store, driver = _server(_NORMAL, Limits(message_size=10))
        driver.receive(_ENVELOPE + b"DATA\r\n" + b"\n" * 8 + b"\r\n.\r\n")
        assert store.contents == [b"\r\n" * 9] * 2
        replies = _replies(driver, _ENVELOPE + b"DATA\r\n" + b"\n" * 9 + b"\r\n.\r\n")
        assert replies[-2:] == ["552 5.3.4 message size exceeds 10 octets"] * 2

    def test_what_was_wrong_first_is_told(self) -> None:
        _, driver = _server(_STRICT, Limits(message_size=10))
        sent = b"DATA\r\n" + b"x" * 8 + b"\r\n\n\r\n.\r\n"
        assert _replies(driver, _ENVELOPE + sent)[-1].startswith("552 ")
        sent = b"DATA\r\n" + b"x" * 6 + b"\n" + b"x" * 8 + b"\r\n.\r\n"
        assert _replies(driver, _ENVELOPE + sent)[-1].startswith("554 ")

    @pytest.mark.parametrize("octet", [b"\0", b"\n"])
    def test_refused_content_without_end_is_not_read_for_ever(self, octet: bytes) -> None:
        _, driver = _server(_STRICT, Limits(message_size=100, discard=100))
        replies = _replies(driver, _ENVELOPE + b"DATA\r\n" + octet * 201)
        assert replies[-1] == "421 4.7.0 too much refused content"
        assert driver.closed

    def test_a_sink_that_refuses_the_last_octet_is_heard(self) -> None:
        connection = _content_expected(_NORMAL)
        connection.receive_data(b"BDAT 1 LAST\r\n\r")
        assert isinstance(connection.next_event(), Bdat)
        assert connection.next_event() == Content(data=b" ")
        connection.refuse_content(Reply(452, "full"))
        event = connection.next_event()
        assert isinstance(event, EndOfContent)
        assert event.refusal == Reply(452, "full")

    @settings(max_examples=200)
    @given(
        st.sampled_from([_STRICT, _NORMAL, ContentPolicy(bare_lf=_REJECT, bare_cr=_NORMALISE)]),
        st.lists(
            st.sampled_from(
                [b"\r", b"\n", b"\0", b".", b"\r\n", b"a", b"x" * 500, b"\r\n.\r\n", b"y" * 1500]
            ),
            max_size=12,
        ),
        st.lists(st.integers(0, 5000), max_size=8),
        st.booleans(),
    )
    def test_any_split_gives_the_same_content_and_end(
        self, policy: ContentPolicy, parts: list[bytes], cuts: list[int], by_dot: bool
    ) -> None:
        octets = b"".join(parts)
        wire = b"DATA\r\n" + octets + b"\r\n.\r\n"
        if not by_dot:
            half = len(octets) // 2
            first, second = octets[:half], octets[half:]
            wire = b"BDAT %d\r\n%bBDAT %d LAST\r\n%b" % (half, first, len(second), second)
        places = sorted({0, len(wire), *(cut % len(wire) for cut in cuts)})
        whole = _play(policy, [wire])
        assert _play(policy, [wire[a:b] for a, b in itertools.pairwise(places)]) == whole
        assert _play(policy, [wire[n : n + 1] for n in range(len(wire))]) == whole


def _content_expected(policy: ContentPolicy) -> ServerConnection:
    connection = ServerConnection(content_policy=policy, limits=Limits(message_size=2000))
    connection.send(Reply(220, "hello"))
    connection.receive_data(b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n")
    while connection.next_event() is not NEED_DATA:
        connection.send(Reply(250, "ok"))
    return connection


def _play(policy: ContentPolicy, pieces: list[bytes]) -> tuple[bytes, list[object]]:
    """The content, and what else came up to its end or a refused chunk."""
    connection = _content_expected(policy)
    content = b""
    events: list[object] = []
    for piece in pieces:
        connection.receive_data(piece)
        while not isinstance(event := connection.next_event(), Signal):
            if isinstance(event, Content):
                content += event.data
            elif isinstance(event, EndOfContent):
                events.append((event.size, event.refusal))
                return content, events
            else:
                events.append(event)
                if isinstance(event, Data):
                    connection.send(Reply(354, "go"))
                elif not isinstance(event, Bdat):
                    connection.send(connection.refusal or Reply(250, "ok"))
                    if connection.state is State.BROKEN:
                        return content, events
    return content, events


_LHLO_REPLY = b"250-host\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-BINARYMIME\r\n250 CHUNKING\r\n"


def _client(
    last: Command, policy: ContentPolicy | None = None, body: Body | None = None
) -> ClientConnection:
    """A client that has said `last` in a transaction with one recipient, and was accepted."""
    client = ClientConnection() if policy is None else ClientConnection(content_policy=policy)
    client.receive_data(b"220 hello\r\n")
    client.next_event()
    client.send(Lhlo(domain="client.example.org"))
    client.receive_data(_LHLO_REPLY)
    client.next_event()
    client.send(Mail(reverse_path=None, parameters=MailParameters(body=body)))
    client.send(Rcpt(recipient=Recipient(address=Address("a", "example.org"))))
    client.send(last)
    client.receive_data(b"250 ok\r\n250 ok\r\n" + (b"354 go\r\n" if last == Data() else b""))
    while client.next_event() is not NEED_DATA:
        pass
    return client


# What servers have taken for the end of the content, or for a line end in front of it.
_SMUGGLED = [
    *(b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n.\r\r\n"),
    *(b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\r\n.\r\n", b"\n\n.\r\n", b"\r\n.\r\n", b"\n\r.\r\n"),
]


class TestClient:
    @pytest.mark.parametrize(
        ("content", "wire"),
        [
            (b"a\nb\n", b"a\r\nb\r\n.\r\n"),
            (b"\n.\n", b"\r\n..\r\n.\r\n"),
            (b"a\rb\r\n", b"a b\r\n.\r\n"),
            (b"a\r\r\n", b"a \r\n.\r\n"),
            (b"a\r", b"a \r\n.\r\n"),
            (b"a\0b\r\n", b"a\0b\r\n.\r\n"),
            (b"x" * 2000, b"x" * 2000 + b"\r\n.\r\n"),
        ],
    )
    def test_no_bare_cr_or_lf_is_sent(self, content: bytes, wire: bytes) -> None:
        for pieces in ([content], [content[n : n + 1] for n in range(len(content))]):
            client = _client(Data())
            assert b"".join(map(client.send_content, pieces)) + client.end_content() == wire

    def test_octets_are_sent_as_they_are_where_all_is_kept(self) -> None:
        client = _client(Data(), ContentPolicy())
        assert client.send_content(b"a\n.\n\r\0") + client.end_content() == b"a\n.\n\r\0\r\n.\r\n"

    @pytest.mark.parametrize("smuggled", _SMUGGLED)
    def test_what_could_end_the_content_elsewhere_ends_it_nowhere(self, smuggled: bytes) -> None:
        content = b"a" + smuggled + b"MAIL FROM:<x@example.org>\r\n"
        expected, _ = _reference(ContentPolicy(bare_cr=_NORMALISE, bare_lf=_NORMALISE), content)
        for cut in range(len(content)):
            client = _client(Data())
            wire = client.send_content(content[:cut]) + client.send_content(content[cut:])
            wire += client.end_content()
            rest = wire.replace(b"\r\n", b"")
            assert b"\r" not in rest
            assert b"\n" not in rest
            assert wire.count(b"\r\n.\r\n") == 1
            store, driver = _server(_STRICT if b"\0" not in content else None)
            driver.receive(_ENVELOPE + b"DATA\r\n" + wire)
            assert store.contents == [expected] * 2

    @pytest.mark.parametrize("smuggled", _SMUGGLED)
    def test_octets_are_neither_lost_nor_doubled_on_the_way(self, smuggled: bytes) -> None:
        content = b"a" + smuggled + b"b\r\n"
        client = _client(Data(), ContentPolicy())
        wire = client.send_content(content) + client.end_content()
        store, driver = _server()
        driver.receive(_ENVELOPE + b"DATA\r\n" + wire)
        assert store.contents == [content] * 2

    @pytest.mark.parametrize(("content", "reason"), _BAD)
    def test_a_message_that_is_rejected_cannot_be_completed(
        self, content: bytes, reason: str
    ) -> None:
        client = _client(Data(), _STRICT)
        with pytest.raises(LocalProtocolError, match=reason):
            client.send_content(content)
        with pytest.raises(LocalProtocolError, match=reason):
            client.send_content(b"more")
        with pytest.raises(LocalProtocolError, match=reason):
            client.end_content()
        assert client.state is State.DATA

    def test_a_cr_at_the_end_is_rejected_by_end_content(self) -> None:
        client = _client(Data(), _STRICT)
        assert client.send_content(b"a\r") == b"a"
        with pytest.raises(LocalProtocolError, match=_BARE_CR):
            client.end_content()

    @pytest.mark.parametrize("content", [b"a\nb", b"a\rb", b"abc\r"])
    def test_a_chunk_cannot_be_normalised(self, content: bytes) -> None:
        client = _client(Bdat(size=len(content), last=True))
        with pytest.raises(LocalProtocolError, match="bare "):
            client.send_content(content)
        # The chunk is not complete, so nothing else can be said.
        with pytest.raises(LocalProtocolError, match="cannot be said"):
            client.send(Bdat(size=0, last=True))

    def test_a_line_end_may_lie_across_chunks(self) -> None:
        client = _client(Bdat(size=2))
        assert client.send_content(b"a\r") == b"a\r"
        client.send(Bdat(size=2, last=True))
        assert client.send_content(b"\n") == b"\n"
        assert client.send_content(b"b") == b"b"

    def test_an_empty_last_chunk_behind_a_cr(self) -> None:
        client = _client(Bdat(size=2))
        client.send_content(b"a\r")
        with pytest.raises(LocalProtocolError, match=_BARE_CR):
            client.send(Bdat(size=0, last=True))
        assert client.in_flight == 1

    def test_an_empty_last_chunk(self) -> None:
        client = _client(Bdat(size=3))
        client.send_content(b"a\r\n")
        assert client.send(Bdat(size=0, last=True)) == b"BDAT 0 LAST\r\n"

    def test_an_empty_last_chunk_makes_no_line_longer(self) -> None:
        client = _client(Bdat(size=998), _STRICT)
        client.send_content(b"x" * 998)
        assert client.send(Bdat(size=0, last=True)) == b"BDAT 0 LAST\r\n"

    @pytest.mark.parametrize(("policy", "body"), [(ContentPolicy(), None), (None, Body.BINARYMIME)])
    def test_chunks_of_any_octets(self, policy: ContentPolicy | None, body: Body | None) -> None:
        client = _client(Bdat(size=5, last=True), policy, body)
        assert client.send_content(b"\n\0\ra\r") == b"\n\0\ra\r"
