"""Several observers of one server."""

import pytest

from lmtp_proto import Observer, Reply, Session
from lmtp_server._observers import observe


class _Recorder(Observer):
    def __init__(self, error: Exception | None = None) -> None:
        self.seen: list[str] = []
        self._error = error

    def shut_down(self, session: Session, reply: Reply, /) -> None:
        self.seen.append(f"{session.id} {reply.code}")
        if self._error is not None:
            raise self._error


def test_each_is_told_whatever_another_raises() -> None:
    observers = [_Recorder(), _Recorder(ValueError("first")), _Recorder(OSError()), _Recorder()]
    observer = observe(observers)
    assert observer is not None
    with pytest.raises(ValueError, match="first"):
        observer.shut_down(Session(id="s", peer="unix"), Reply(421, "ends"))
    assert [each.seen for each in observers] == [["s 421"]] * 4


def test_every_method_reaches_them() -> None:
    observer = observe([Observer(), Observer()])
    names = {name for name in vars(Observer) if not name.startswith("_")}
    assert names <= set(vars(type(observer)))


def test_none_and_one_cost_nothing_more() -> None:
    only = _Recorder()
    assert observe([]) is None
    assert observe([only]) is only
