"""Users and their agents brought together: what broker and workers make of the settings.

The invariant: whose mail it is, as whom it is written and where it lies the broker finds out for
itself; a worker decides no more than which mailbox gets it.
"""

import tempfile
from collections.abc import Callable
from functools import lru_cache, partial

from lmtp_proto import Recipient, Reply

from ._components import make_users
from ._privileges import (
    AgentOptions,
    BrokerOptions,
    Confinement,
    Identity,
    Lookup,
    MailUser,
    Mode,
    Plan,
    PrivilegesError,
    UserMailbox,
    ValidIds,
    plan,
)
from ._settings import ServeSettings
from ._users import Located, NotFound, Users

AGENTS_OF_A_WORKER = 64
"""At most, at a time."""


def make_lookup(settings: ServeSettings) -> Lookup:
    """The broker's directory."""
    users = make_users(settings, own_uid=None)
    policy = lru_cache(maxsize=1024)(settings.quota.policy)

    def look_up(name: str) -> MailUser | None:
        found = users.lookup(name)
        if isinstance(found, NotFound):
            return None
        entry = found.entry
        if entry.uid is None or entry.gid is None:
            raise PrivilegesError("the directory gives it no uid and gid: mail is nobody's")
        quota = policy(entry.quota_rules)
        return MailUser(
            name=entry.name,
            identity=Identity(entry.uid, entry.gid, entry.groups or (entry.gid,)),
            home=entry.home or "/",
            mail=str(found.maildir),
            quota=quota if entry.quota_rules or quota.mail_size else None,
        )

    return look_up


def valid_ids(settings: ServeSettings) -> ValidIds:
    """The ids that users may have."""
    return ValidIds(
        first_uid=settings.first_valid_uid,
        last_uid=settings.last_valid_uid,
        first_gid=settings.first_valid_gid,
        last_gid=settings.last_valid_gid,
    )


def who_serves(settings: ServeSettings) -> Plan:
    """Whom the processes of a daemon run as that this user starts. Raises PrivilegesError."""
    if settings.user is None and not settings.userdb:
        # Nobody has a uid: all mail is that of whoever has started it.
        return Plan(Mode.UNCHANGED)
    return plan(
        user=settings.user,
        group=settings.group,
        network_user=settings.network_user,
        valid_ids=valid_ids(settings),
    )


def agent_options(settings: ServeSettings) -> AgentOptions:
    """What all agents have in common."""
    return AgentOptions(
        hostname=settings.hostname,
        sync=settings.sync,
        line_ending=settings.line_ending,
        folders=settings.folders,
        trace=settings.trace.options,
        retries=settings.retries.options,
        reports=True,
        batches=bool(settings.metrics.listen) or settings.control is not None,
    )


def broker_options(settings: ServeSettings) -> BrokerOptions:
    """What broker and agents have and may do."""
    return BrokerOptions(
        agent=agent_options(settings),
        valid_ids=valid_ids(settings),
        confinement=Confinement(execute=bool(settings.quota.warnings)),
        # At a reload there are the workers of two plans.
        most_agents=2 * settings.workers * AGENTS_OF_A_WORKER,
    )


def spool_directory(settings: ServeSettings) -> str:
    """Where large messages wait for agents."""
    return settings.spool_directory or tempfile.gettempdir()


class AgentPlaces:
    """Where mail goes that agents write, as `AgentHandler` asks."""

    def __init__(self, users: Users, settings: ServeSettings) -> None:
        self._users = users
        self._detail_is_mailbox = settings.save_to_detail_mailbox
        self._all_limited = bool(settings.quota.policy(()).mail_size)

    def locate(
        self, recipient: Recipient
    ) -> UserMailbox | Reply | Callable[[], UserMailbox | Reply]:
        """The mailbox, a refusal, or a job that decides."""
        found = self._users.find(recipient)
        if isinstance(found, Located | Reply):
            return self._place(found)
        return partial(self._find, found)

    def _find(self, find: Callable[[], Located | Reply]) -> UserMailbox | Reply:
        return self._place(find())

    def _place(self, found: Located | Reply) -> UserMailbox | Reply:
        if isinstance(found, Reply):
            return found
        return UserMailbox(
            # By the name that was looked up: the broker looks it up again.
            user=found.user,
            mailbox=found.detail if self._detail_is_mailbox and found.detail else "INBOX",
            has_quota=self._all_limited or bool(found.entry.quota_rules),
        )
