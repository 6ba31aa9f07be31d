"""Records of deliveries as octets, and what a store makes of them whatever becomes of it."""

import shutil
import tempfile
import time
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mailstore import MaildirStore, RetryOptions, Sync
from mailstore._retry_record import SIZE, Record, State, by_age, digest, find
from tests.mailstore.support import HOSTNAME, deliver

_OCTETS = st.binary(min_size=16, max_size=16)
_TIMES = st.integers(min_value=0, max_value=2**64 - 1)
_RECORDS = st.builds(Record, _OCTETS, _OCTETS, _TIMES, st.sampled_from(State))


@given(_RECORDS)
def test_what_is_written_is_read(record: Record) -> None:
    assert len(record.pack()) == SIZE
    assert Record.unpack(record.pack()) == record


@given(_RECORDS, st.integers(min_value=0, max_value=SIZE * 8 - 1))
def test_a_record_with_one_bit_changed_is_none(record: Record, bit: int) -> None:
    changed = bytearray(record.pack())
    changed[bit // 8] ^= 1 << bit % 8
    assert Record.unpack(bytes(changed)) is None


@given(_RECORDS, _RECORDS, st.integers(min_value=1, max_value=SIZE - 1))
def test_a_record_that_was_written_in_part_is_none(old: Record, new: Record, cut: int) -> None:
    torn = new.pack()[:cut] + old.pack()[cut:]
    assert Record.unpack(torn) in {None, old, new}
    assert Record.unpack(new.pack()[:cut]) is None


@given(st.binary(max_size=4 * SIZE), _OCTETS)
def test_other_octets_are_no_records(octets: bytes, key: bytes) -> None:
    assert list(find(octets + key + octets, key)) == []
    assert Record.unpack(octets) is None


_SLOTS = st.lists(_RECORDS | st.binary(min_size=SIZE, max_size=SIZE), max_size=8)


@given(_SLOTS, _RECORDS, _TIMES)
def test_records_are_found_where_they_are(
    slots: list[Record | bytes], record: Record, now: int
) -> None:
    slots = [record, *slots, record]
    octets = b"".join(slot.pack() if isinstance(slot, Record) else slot for slot in slots)
    expected = [
        (number, slot)
        for number, slot in enumerate(slots)
        if isinstance(slot, Record) and slot.key == record.key
    ]
    assert list(find(octets, record.key)) == expected
    assert sorted(by_age(octets, now)) == list(range(len(slots)))


def test_empty_places_and_the_oldest_go_first() -> None:
    now = time.time_ns()
    ages = [5, 3, 9, -7, 1]
    octets = b"".join(Record(bytes(16), bytes(16), now - age, State.BEGUN).pack() for age in ages)
    assert by_age(octets + bytes(SIZE), now) == [5, 2, 3, 0, 1, 4]


@given(st.lists(st.binary(max_size=3), max_size=3), st.lists(st.binary(max_size=3), max_size=3))
def test_fields_are_not_taken_for_others(one: list[bytes], other: list[bytes]) -> None:
    assert (digest(*one) == digest(*other)) == (one == other)


_ENTRIES = 3
_WINDOW = 100
_SECOND = 1_000_000_000


class _Deliveries(RuleBasedStateMachine):
    """Deliveries of a few messages to one user, who reads, deletes and spoils the file."""

    def __init__(self) -> None:
        super().__init__()
        self._root = Path(tempfile.mkdtemp())
        self._now = 1_700_000_000 * _SECOND
        self._clock = mock.patch("time.time_ns", side_effect=lambda: self._now)
        self._clock.start()
        # When each message was stored last; the newest comes last. `_sure` is what must be known.
        self._stored: dict[int, int] = {}
        self._sure: list[int] = []
        self._there = 0
        self._open()

    def _open(self) -> None:
        options = RetryOptions(window=_WINDOW, entries=_ENTRIES)
        self._store = MaildirStore(self._root, hostname=HOSTNAME, sync=Sync.NEVER, retries=options)

    def _files(self) -> list[Path]:
        return [path for part in ("new", "cur") for path in self._root.glob(f"u/{part}/*")]

    @rule(message=st.integers(min_value=0, max_value=5))
    def deliver(self, message: int) -> None:
        # No two deliveries to one user are of the same nanosecond.
        self._now += 1
        (reply,) = deliver(self._store, b"Subject: %d\r\n\r\n" % message, ["u"])
        assert reply.code == 250
        recognised = reply.text.endswith("Saved before")
        recent = self._now - self._stored.get(message, 0) <= _WINDOW * _SECOND
        if recognised:
            assert recent, "lost"
        else:
            assert not (recent and message in self._sure), "twice"
            self._there += 1
            self._stored[message] = self._now
            self._sure = [*(one for one in self._sure if one != message), message][-_ENTRIES:]

    @rule(seconds=st.sampled_from([1, 60, 101]))
    def wait(self, seconds: int) -> None:
        self._now += seconds * _SECOND

    @precondition(lambda self: self._there)
    @rule(number=st.integers(min_value=0), deleted=st.booleans())
    def read(self, number: int, deleted: bool) -> None:
        path = sorted(self._files())[number % self._there]
        if deleted:
            path.unlink()
            self._there -= 1
        else:
            path.rename(self._root / "u" / "cur" / f"{path.name.partition(':')[0]}:2,S")

    @rule()
    def start_again(self) -> None:
        self._store.close()
        self._open()

    @precondition(lambda self: self._there)
    @rule(place=st.integers(min_value=0, max_value=_ENTRIES * SIZE - 1), octets=st.binary())
    def spoil(self, place: int, octets: bytes) -> None:
        path = self._root / "u" / "lmtp-retries"
        data = bytearray(path.read_bytes())
        data[place : place + len(octets)] = octets
        path.write_bytes(data)
        # What is left of it may be recognised, and need not be.
        self._sure = []

    @invariant()
    def all_that_was_stored_is_there(self) -> None:
        assert len(self._files()) == self._there

    def teardown(self) -> None:
        self._clock.stop()
        self._store.close()
        shutil.rmtree(self._root)


TestDeliveries = _Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
