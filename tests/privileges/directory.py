"""A directory of users in a JSON file, for the programs of these tests."""

import json
from pathlib import Path

from lmtp_server._privileges import Identity, MailUser
from mailstore import QuotaPolicy


class Directory:
    """The users of the file, read anew for each look-up."""

    def __init__(self, path: str) -> None:
        self._path = path

    def lookup(self, name: str) -> MailUser | None:
        users = json.loads(Path(self._path).read_text())["users"]
        if name not in users:
            return None
        user = users[name]
        quota = user.get("quota")
        return MailUser(
            name=name,
            identity=Identity(user["uid"], user["gid"], tuple(user.get("groups", ()))),
            home=user["home"],
            mail=user["mail"],
            chroot=user.get("chroot"),
            quota=None if quota is None else QuotaPolicy.parse(quota, grace="0"),
        )
