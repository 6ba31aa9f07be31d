"""`python -m tests.fuzz.atheris_target FOLDER -max_total_time=300`: coverage guides the dialogues.

Needs the extra `fuzz`. FOLDER keeps the dialogues that led somewhere new and the one that went
wrong; the options are libFuzzer's. The first octet says who is fuzzed. For the server, four more
are the seed of its handler's moods and of the cuts, and the rest is what the client says; for the
others all octets are the choices that chance has.
"""

import random
import sys
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["lmtp_proto"], enable_loader_override=False):
    from tests.fuzz import client, joined, server

_SEEDS: Final = 200


class _Choices(random.Random):
    """Chance as octets have it; when they are used up, as one seed has it."""

    def __init__(self, octets: bytes) -> None:
        super().__init__(0)
        self._octets = octets
        self._place = 0

    def _take(self, count: int) -> bytes:
        octets = self._octets[self._place : self._place + count]
        self._place += count
        return octets

    def random(self) -> float:
        octets = self._take(2)
        return int.from_bytes(octets) / 65536 if len(octets) == 2 else super().random()

    def getrandbits(self, k: int, /) -> int:
        count = (k + 7) // 8
        octets = self._take(count)
        if len(octets) < count:
            return super().getrandbits(k)
        return int.from_bytes(octets) & ((1 << k) - 1)


def hold(octets: bytes) -> None:
    """Hold the dialogue that `octets` are."""
    match octets[:1]:
        case b"C":
            client.hold(_Choices(octets[1:]))
        case b"J":
            joined.hold(_Choices(octets[1:]))
        case _ if octets[5:]:
            server.hold(octets[5:], random.Random(octets[1:5]))


def main() -> None:
    """Fuzz until something goes wrong or the time is over."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m tests.fuzz.atheris_target FOLDER [libFuzzer's options]")
    folder = Path(sys.argv[1])
    found = folder / "found"
    seeds = folder / "seeds"
    words = folder / "words"
    for each in (found, seeds):
        each.mkdir(parents=True, exist_ok=True)
    for seed in range(_SEEDS):
        chance = random.Random(seed)
        Path(seeds, f"server-{seed}").write_bytes(b"S" + bytes(4) + server.dialogue(chance))
        Path(seeds, f"client-{seed}").write_bytes(b"C" + chance.randbytes(400))
        Path(seeds, f"joined-{seed}").write_bytes(b"J" + chance.randbytes(400))
    words.write_text("".join(f'"{_escaped(piece)}"\n' for piece in server.PIECES))
    options = [f"-dict={words}", f"-artifact_prefix={folder}/", "-max_len=8192", *sys.argv[2:]]
    atheris.Setup([sys.argv[0], *options, str(found), str(seeds)], hold)
    atheris.Fuzz()


def _escaped(octets: bytes) -> str:
    """Octets as a dictionary of libFuzzer has them."""
    return "".join(f"\\x{octet:02x}" for octet in octets[:100])


if __name__ == "__main__":
    main()
