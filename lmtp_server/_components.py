"""The users and the store that settings describe, the same for every command.

The invariant: all commands that deliver or ask find the same user at the same place.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import assert_never

from mailstore import (
    MaildirQuotas,
    MaildirStore,
    Quota,
    QuotaPolicy,
    RedisQuotas,
    StoreObserver,
    TraceOptions,
)

from ._settings import ServeSettings
from ._settings._userdb import PasswdFileUserdb, StaticUserdb, SystemUserdb
from ._users import (
    Cached,
    Directory,
    Driver,
    Located,
    NameRules,
    PasswdFile,
    StaticUsers,
    SystemUsers,
    Text,
    Userdb,
    Users,
    ValidIds,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """Users, their store and their quotas."""

    users: Users
    store: MaildirStore
    quotas: "Quotas"

    def close(self) -> None:
        """Finish the deliveries that were begun."""
        self.store.close()
        self.quotas.close()


class Quotas:
    """The quotas of users whose Maildirs are below `root`, counted there or in Redis.

    Raises OSError, and ImportError if Redis is asked for and its extra is not installed.
    """

    def __init__(self, settings: ServeSettings, *, root: str) -> None:
        quota = settings.quota
        self._maildirs = MaildirQuotas(root, sync=settings.sync)
        self._redis = None
        if quota.backend == "redis":
            assert quota.url is not None
            self._redis = RedisQuotas(
                quota.url.reveal(), prefix=quota.prefix, timeout=quota.timeout
            )
        self._policy = lru_cache(maxsize=1024)(quota.policy)

    def policy(self, located: Located) -> QuotaPolicy:
        """What a user may hold."""
        return self._policy(located.entry.quota_rules)

    def of(self, located: Located) -> Quota | None:
        """The quota of a user, None without one."""
        if not located.entry.quota_rules and not self.policy(located).mail_size:
            return None
        return self.always(located)

    def always(self, located: Located) -> Quota:
        """The quota of a user, for counting where there is no limit, too."""
        policy = self.policy(located)
        maildir = self._maildirs.of(located.maildir, policy)
        if self._redis is None:
            return maildir
        return self._redis.of(located.entry.name, policy, maildir.count)

    def finish_warnings(self) -> None:
        """Wait until the programs that warn have ended."""
        self._maildirs.finish_warnings()
        if self._redis is not None:
            self._redis.finish_warnings()

    def close(self) -> None:
        """Close the root and the connections."""
        self._maildirs.close()
        if self._redis is not None:
            self._redis.close()


def open_mail(
    settings: ServeSettings, *, own_uid: int | None, observer: StoreObserver | None = None
) -> Mail:
    """What delivers by `settings`. `own_uid` is that of `Users`, `observer` the store's. Raises
    OSError."""
    root = store_root(settings)
    quotas = Quotas(settings, root=root)
    return Mail(
        users=make_users(settings, own_uid=own_uid, quotas=quotas),
        store=make_store(settings, root=root, observer=observer),
        quotas=quotas,
    )


def make_users(
    settings: ServeSettings,
    *,
    own_uid: int | None,
    quotas: Quotas | None = None,
    tells_faults: bool = True,
) -> Users:
    """The users. `tells_faults`: what is wrong with users who are not asked for is logged, too."""
    return Users(
        Directory(_userdbs(settings, tells_faults), defaults=settings.quota.fields),
        settings.mail,
        names=NameRules(
            delimiters=settings.recipient_delimiter,
            hostname=settings.hostname,
            format=settings.auth_username_format,
            characters=settings.auth_username_chars,
        ),
        ids=ValidIds(
            first_uid=settings.first_valid_uid,
            last_uid=settings.last_valid_uid,
            first_gid=settings.first_valid_gid,
            last_gid=settings.last_valid_gid,
        ),
        own_uid=own_uid,
        detail_is_mailbox=settings.save_to_detail_mailbox,
        quota=None if quotas is None else quotas.of,
    )


def make_store(
    settings: ServeSettings,
    *,
    root: str,
    trace: TraceOptions | None = None,
    observer: StoreObserver | None = None,
) -> MaildirStore:
    """A store of the Maildirs below `root`. Raises OSError."""
    return MaildirStore(
        root,
        hostname=settings.hostname,
        sync=settings.sync,
        line_ending=settings.line_ending,
        folders=settings.folders,
        # Below the mail root a spooled message lies on the file system it goes to.
        spool_directory=settings.spool_directory
        or (None if root != "/" else tempfile.gettempdir()),
        spool_threshold=settings.spool_threshold,
        trace=settings.trace.options if trace is None else trace,
        hard_links=settings.hard_links,
        retries=settings.retries.options,
        observer=observer,
    )


def mail_root(settings: ServeSettings) -> str | None:
    """The directory that has to be there for mail by the template `mail`; None if that is in the
    users' homes."""
    root = settings.mail.root
    return None if root is None else os.path.realpath(root)


def store_root(settings: ServeSettings) -> str:
    """The directory that all Maildirs lie below, without links in its path."""
    everywhere = any(
        not isinstance(userdb, StaticUserdb)
        or userdb.mail is not None
        or "mail" in {**userdb.fields, **userdb.default_fields, **userdb.override_fields}
        for userdb in settings.userdb
    )
    return "/" if everywhere else mail_root(settings) or "/"


def _userdbs(settings: ServeSettings, tells_faults: bool) -> list[Userdb]:
    if not settings.userdb:
        return [Userdb(name="static", driver=StaticUsers({}, paths=[settings.mail]))]
    return [
        Userdb(
            name=f"{number} ({table.driver})",
            driver=_driver(settings, table, tells_faults),
            default_fields=_texts(table.default_fields),
            override_fields=_texts(table.override_fields),
            skip=table.skip,
            result_success=table.result_success,
            result_failure=table.result_failure,
            result_internalfail=table.result_internalfail,
        )
        for number, table in enumerate(settings.userdb)
    ]


def _driver(
    settings: ServeSettings,
    table: StaticUserdb | PasswdFileUserdb | SystemUserdb,
    tells_faults: bool,
) -> Driver:
    match table:
        case StaticUserdb():
            return StaticUsers(
                table.fields,
                home=table.home,
                mail=table.mail,
                users=table.users,
                paths=[] if table.mail is not None else [settings.mail],
            )
        case PasswdFileUserdb():
            return PasswdFile(
                table.path, username_format=table.username_format, tells_faults=tells_faults
            )
        case SystemUserdb():
            return Cached(
                SystemUsers(drop_domain=table.drop_domain),
                ttl=table.cache_ttl,
                negative_ttl=table.cache_negative_ttl,
                size=table.cache_size,
            )
        case _:
            assert_never(table)


def _texts(fields: Mapping[str, str]) -> dict[str, Text]:
    return {key: Text(text) for key, text in fields.items()}
