"""Dovecot's settings that have no counterpart here, and why.

The invariant: every setting of Dovecot that bears on LMTP or on local delivery is either named by a
setting of ours (`About.dovecot`) or stands here.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from ._table import Table, settings_of

_SIEVE: Final = "there is no Sieve yet, and nothing else here sends mail"
_INDEXES: Final = "no index is written; Dovecot's IMAP server brings its own up to date"
_PROXY: Final = "there is no proxy yet: every recipient is delivered to here"

WITHOUT: Final[Mapping[str, str]] = {
    # LMTP.
    "lmtp_proxy": _PROXY,
    "lmtp_proxy_rawlog_dir": _PROXY,
    "lmtp_verbose_replies": _PROXY,
    "lmtp_rcpt_check_quota": "always: a message that has no room is refused at RCPT, by its SIZE",
    "mail_utf8_extensions": "SMTPUTF8 is always offered",
    "protocols": "there is one; `listen` and `[[listener]]` say where",
    # Local delivery.
    "postmaster_address": _SIEVE,
    "rejection_subject": _SIEVE,
    "rejection_reason": _SIEVE,
    "sendmail_path": _SIEVE,
    "submission_host": _SIEVE,
    "submission_ssl": _SIEVE,
    "submission_timeout": _SIEVE,
    # Storage.
    "mail_inbox_path": "the INBOX is the Maildir itself (Maildir++)",
    "mail_access_groups": "a user's groups come from its userdb, as the field `groups`",
    "mail_privileged_group": "Maildirs need none: it is for lock files beside an mbox",
    "valid_chroot_dirs": "users have no chroot",
    "mail_chroot": "users have no chroot",
    "maildir_very_dirty_syncs": _INDEXES,
    "maildir_broken_filename_sizes": "sizes in file names are written, not read",
    "maildir_empty_new": "new mail goes to new/, always",
    "maildir_stat_dirs": "folders are not listed",
    "mail_temp_scan_interval": "what is dead in tmp/ is removed after 36 hours",
    "lock_method": "as Dovecot locks `subscriptions` and `dovecot-keywords`: by dotlock files",
    "mail_plugins": "set plugins: mail_log and push_notification are there; the quota is built in",
    "mail_attachment_dir": "attachments stay in their messages",
    "mail_attachment_fs": "attachments stay in their messages",
    "mail_attachment_min_size": "attachments stay in their messages",
    "mailbox_list_layout": "always Maildir++",
    "mail_driver": "always maildir",
    "mailbox: auto": "the IMAP server makes the mailboxes that users are to have",
    # Service and listeners.
    "reuse_port": "workers share one socket, so that no connection is dropped with a worker",
    "process_limit": "`workers` is the number of processes, `limits.total_client_limit` the bound",
    "idle_kill": "the number of workers is fixed",
    "shutdown_clients": "always: a reload and a stop tell idle clients 421",
    "verbose_proctitle": "always: a worker's title says how many connections it has",
    "import_environment": "the environment stays as it was",
    "chroot": "workers give up their privileges instead",
    "privileged_group": "none is needed",
    "extra_groups": "none is needed",
    "drop_priv_before_exec": "workers are not executed anew",
    "ssl_cipher_list": "OpenSSL's own choice, which the system's policy sets",
    "ssl_cipher_suites": "OpenSSL's own choice, which the system's policy sets",
    "ssl_curve_list": "OpenSSL's own choice, which the system's policy sets",
    "ssl_dh": "no ciphers that need it are offered",
    "ssl_prefer_server_ciphers": "OpenSSL's own choice",
    "ssl_client_ca_dir": "nothing here is a TLS client yet",
    "ssl_client_ca_file": "nothing here is a TLS client yet",
    # Users.
    "prefetch": "it is for logins alone",
    "userdb sql": "there is no driver for it yet; list the users in a file (passwd-file)",
    "userdb ldap": "there is no driver for it yet; list the users in a file (passwd-file)",
    "userdb lua": "there is no driver for it; list the users in a file (passwd-file)",
    "userdb dict": "there is no driver for it; list the users in a file (passwd-file)",
    # Quota.
    "quota_mailbox_message_count": "the messages of one folder have no limit",
    "quota_storage_percentage": "write the limit itself in `quota.rules`",
    "quota_storage_extra": "write a rule for the folder in `quota.rules`",
    "quota_message_percentage": "write the limit itself in `quota.rules`",
    "quota_message_count": "write it in `quota.rules`: `*:messages=1000`",
    "quota_enforce": "a quota is always enforced",
    "quota_ignore": "a rule `FOLDER:ignore` in `quota.rules`",
    "quota_hidden": "the quota is shown to nobody",
    "quota_status_overquota": "there is no policy service: RCPT tells at once",
    "quota_status_success": "there is no policy service: RCPT tells at once",
    "quota_status_nouser": "there is no policy service: RCPT tells at once",
    "quota_vsizes": "what counts is the size on disk",
    "quota_set": "limits are not set by users",
}
"""Reasons by Dovecot's names."""


def named_by_dovecot(root: type[Table]) -> Iterator[tuple[str, str]]:
    """Dovecot's names of our settings, with the paths of these."""
    for name, setting in settings_of(root).items():
        for word in setting.about.dovecot:
            yield word, name
        for table in setting.tables:
            for word, below in named_by_dovecot(table):
                yield word, f"{name}.{below}"


def hint(name: str, root: type[Table]) -> str:
    """What to write here for Dovecot's setting `name`; empty where it is not known."""
    paths = dict.fromkeys(path for word, path in named_by_dovecot(root) if word == name)
    if paths:
        return f"Dovecot's {name} is {' or '.join(paths)} here"
    reason = WITHOUT.get(name)
    return f"Dovecot's {name} has no counterpart: {reason}" if reason else ""
