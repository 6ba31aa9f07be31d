"""What an object does anew in a forked child, in which the threads and locks of its parent are
nobody's.

The invariant: an object is not kept alive for the sake of children.
"""

import os
import weakref
from collections.abc import Callable


def call_in_child(method: Callable[[], None]) -> None:
    """Call `method`, which is bound to an object, in each child that is forked while that lives."""
    of_the_object = weakref.WeakMethod(method)

    def call() -> None:
        bound = of_the_object()
        if bound is not None:
            bound()

    os.register_at_fork(after_in_child=call)
