"""Pre-forked workers for the benchmarks' own small servers, which share one listening socket.

SIGTERM or SIGINT to the first process ends them all; none outlives it, whatever ends it.
"""

import ctypes
import os
import signal
from collections.abc import Callable
from types import FrameType

_PR_SET_PDEATHSIG = 1


def run(workers: int, serve: Callable[[], None]) -> None:
    """Call `serve` in this process (`workers` is 1) or in that many forked ones, until they return
    or are ended.
    """
    if workers == 1:
        serve()
        return
    parent = os.getpid()
    children = []
    for _ in range(workers):
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            # The parent may have gone before that was set.
            if os.getppid() == parent:
                serve()
            os._exit(0)
        children.append(child)

    def forward(_number: int, _frame: FrameType | None) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    while children:
        os.waitpid(children[0], 0)
        del children[0]
