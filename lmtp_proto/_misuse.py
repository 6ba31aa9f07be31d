"""What to say of a handler that gives what its method may not give.

Nothing that came from the wire, or that a handler made of it, reaches a log line unescaped or in
any length.
"""

from collections.abc import Coroutine
from typing import Final

from ._errors import HandlerError
from ._reply import Reply

# Characters of one log line that may come from the wire.
_LIMIT: Final = 250


def escape(text: str) -> str:
    """Printable ASCII on one line of bounded length, for the log."""
    return text[:_LIMIT].encode("unicode_escape").decode("ascii")


def misuse(method: str, answer: object, awaited: str) -> HandlerError:
    """The error that says what `method` gave instead of what is awaited."""
    if isinstance(answer, Coroutine):
        # Nobody is going to await it.
        answer.close()
    given = escape(str(answer)) if isinstance(answer, Reply) else f"a {type(answer).__name__}"
    return HandlerError(f"{method}() of the handler answered {given}: {awaited} is awaited")


def lacks(thing: object, *methods: str) -> bool:
    """Whether `thing` is not what it was taken for: one of its `methods` is missing."""
    try:
        return not all(callable(getattr(thing, method, None)) for method in methods)
    except Exception:
        return True
