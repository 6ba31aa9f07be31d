"""Makes settings of Dovecot's.

The invariant: what is written is a settings file that can be read, and whatever of Dovecot's
settings bears on LMTP is in it or in the notes, with what to do.
"""

import re
from dataclasses import dataclass
from typing import Final

from ._doveconf import read_doveconf
from ._dovecot_draft import Draft
from ._dovecot_names import WITHOUT
from ._dovecot_quota import import_quota
from ._dovecot_service import import_listeners, import_service, import_tls
from ._dovecot_users import import_userdbs
from ._dovecot_values import import_logs, import_mail_location, import_near_values, import_values

# Settings with these beginnings, and these, are about something else than LMTP.
_OTHERS: Final = re.compile(
    r"(imap|pop3|submission|managesieve|doveadm|replication|director|dsync|stats|anvil|auth_|"
    r"login_|dict|fts|mailbox_idle|mail_cache|mail_log_|mail_attribute|mail_vsize|mail_debug|"
    r"mail_prefetch|mail_shared|mail_max_keyword|mail_max_userip|mail_nfs|mmap_|maildir_|mdbox_|"
    r"verbose_ssl|ssl_client|ssl_require|ssl_alt|sieve|trash|acl|event_|metric|old_stats|"
    r"dotlock|default_|version_ignore|config_|state_dir|shutdown|"
    r"recipient_delimiter_|dovecot_|disable_plaintext|instance_name|import_env|"
    r"namespace|passdb|plugin|listen$|protocols$|mail_plugins$|mail_server|mail_crypt|oauth2|"
    r"rawlog|language|last_|push_notification|notify|welcome|virtual|layout|"
    r"mail_(index|control|volatile|alt)_path|ssl$|ssl_options)"
)


@dataclass(slots=True)
class Imported:
    """A settings file, and what is not in it."""

    toml: str
    notes: list[str]


def import_doveconf(text: str) -> Imported:
    """Make a settings file of what `doveconf -n` has written. Raises DovecotError."""
    conf = read_doveconf(text)
    draft = Draft(conf)
    draft.top.comment(
        f"Made of the settings of Dovecot {conf.version or '(version not known)'}"
        " by lmtp-server config import-dovecot."
    )
    for step in (
        import_values,
        import_near_values,
        import_mail_location,
        import_service,
        import_tls,
        import_listeners,
        import_userdbs,
        import_quota,
        import_logs,
    ):
        step(draft)
    _left_over(draft)
    return Imported(draft.toml(), draft.notes)


def _left_over(draft: Draft) -> None:
    others = []
    for name, value in draft.settings.items():
        # What is off or empty is not missed.
        if name in draft.seen or value in {"", "no", "0"}:
            continue
        if name in WITHOUT:
            draft.note(name, WITHOUT[name])
        elif _OTHERS.match(name):
            others.append(name)
        else:
            draft.note(name, f"{value!r}: there is nothing like it here; look whether it matters")
    others += [
        f"{section.name} {section.argument}".rstrip()
        for section in draft.root.sections
        if section.name in {"passdb", "service", "protocol", "metric", "plugin"}
        and section.argument != "lmtp"
    ]
    for section in draft.root.find("plugin"):
        others += [f"plugin: {name}" for name in section.settings if not name.startswith("quota")]
    if others:
        draft.note("not about LMTP", ", ".join(dict.fromkeys(others)))
