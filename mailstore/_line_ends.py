"""Which line ends content has, found out by primitives that run in C."""

from io import IncrementalNewlineDecoder


def has_only_crlf(octets: bytearray, without_cr: bytearray) -> bool:
    """Whether CR and LF stand in pairs alone. `without_cr` is `octets` without any CR."""
    if _has_even_lines(octets, len(octets) - len(without_cr)):
        return True
    # The decoder of text files notes what it has met.
    decoder = IncrementalNewlineDecoder(None, translate=False)
    decoder.decode(octets.decode("latin-1"), final=True)
    return decoder.newlines in (None, "\r\n")


def _has_even_lines(octets: bytearray, count: int) -> bool:
    """Whether there are `count` CR and LF, in pairs that are equally far from each other, as in
    nearly all of a large message: what is encoded has such lines, and this takes half the time."""
    first = octets.find(b"\r\n")
    step = octets.find(b"\r\n", first + 2) - first
    return (
        first >= 0
        and step > 0
        and octets[first::step] == b"\r" * count
        and octets[first + 1 :: step] == b"\n" * count
        and len(octets.replace(b"\n", b"")) == len(octets) - count
    )
