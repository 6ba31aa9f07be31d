"""The users of the system, as NSS knows them: /etc/passwd, LDAP, winbind, ...

The invariant: nothing is asked in the thread of who serves, since any of these may wait for a host.
"""

import os
import pwd
from typing import Final

from ._entry import DirectoryError, Fields, NotFound


class SystemUsers:
    """The accounts of this machine (a `Driver`).

    The user's domain is left away with `drop_domain`; otherwise one with a domain is looked for
    with it, as winbind may have it.
    """

    constant: Final = False

    def __init__(self, *, drop_domain: bool = True) -> None:
        self._drop_domain = drop_domain

    def recall(self, _user: str, /) -> Fields | NotFound | None:
        """Nothing can be said without asking."""
        return None

    def lookup(self, user: str, /) -> Fields | NotFound:
        """Ask the system; may block. Raises DirectoryError."""
        name = user.rpartition("@")[0] if self._drop_domain and "@" in user else user
        try:
            account = pwd.getpwnam(name)
            groups = os.getgrouplist(account.pw_name, account.pw_gid)
        except KeyError:
            return NotFound(user)
        except OSError as error:
            raise DirectoryError(f"the system cannot say: {error.strerror}") from error
        except ValueError:
            # A NUL in it, or what cannot be encoded.
            return NotFound(user)
        # NSS may match a name in another case; it is the account's that counts.
        return {
            "user": account.pw_name,
            "uid": str(account.pw_uid),
            "gid": str(account.pw_gid),
            "groups": ",".join(str(group) for group in groups),
            "home": account.pw_dir,
        }
