"""What a conversation costs, without a clock: the calls it makes, the memory that it keeps.

Neither knows how the code works inside. Together they bound the time: each call of C code works on
no more than what is kept and what has just come, so few calls on little memory are little time.
"""

import gc
import sys
from collections import deque
from types import FrameType, GeneratorType, TracebackType
from typing import Final

# What holds other objects and belongs to whoever refers to it.
_CONTAINERS: Final = (list, tuple, dict, set, deque, GeneratorType, FrameType)
_TEXT: Final = (bytes, bytearray, str)


class Calls:
    """Counts the calls of functions, those in C included, while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def _called(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.count += 1

    def __enter__(self) -> None:
        sys.setprofile(self._called)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.setprofile(None)


def kept(root: object, *shared: object) -> int:
    """Octets of memory that can be reached from `root` through the objects of the protocol, without
    what is reached through `shared`."""
    seen = {id(each) for each in shared}
    rest = [root]
    size = 0
    while rest:
        thing = rest.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, _TEXT):
            size += sys.getsizeof(thing)
        elif isinstance(thing, _CONTAINERS) or type(thing).__module__.startswith("lmtp_proto."):
            size += sys.getsizeof(thing)
            rest += gc.get_referents(thing)
    return size
