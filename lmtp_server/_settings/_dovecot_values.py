"""Dovecot's settings that are settings here, with values that mean the same or nearly so."""

from collections.abc import Mapping
from typing import Final

from lmtp_server._users import MailTemplate

from ._dovecot_draft import Draft, DraftTable
from ._fit import fit
from ._table import find_setting
from ._top import ServeSettings

_DIRECT: Final[Mapping[str, str]] = {
    "hostname": "hostname",
    "login_greeting": "greeting",
    "recipient_delimiter": "recipient_delimiter",
    "auth_username_chars": "auth_username_chars",
    "auth_username_format": "auth_username_format",
    "lmtp_save_to_detail_mailbox": "save_to_detail_mailbox",
    "lmtp_user_concurrency_limit": "limits.user_concurrency_limit",
    "quota_mailbox_count": "quota.mailbox_count",
    "lda_mailbox_autocreate": "mailbox_autocreate",
    "lda_mailbox_autosubscribe": "mailbox_autosubscribe",
    "mailbox_list_utf8": "mailbox_utf8",
    "mail_fsync": "fsync",
    "mail_save_crlf": "save_crlf",
    "mail_temp_dir": "spool_directory",
    "first_valid_uid": "first_valid_uid",
    "last_valid_uid": "last_valid_uid",
    "first_valid_gid": "first_valid_gid",
    "last_valid_gid": "last_valid_gid",
    "lmtp_hdr_delivery_address": "trace.delivered_to",
    "lmtp_add_received_header": "trace.received",
    "lda_original_recipient_header": "trace.original_recipient_header",
}
"""Settings whose values mean the same here."""
_LOGS: Final[Mapping[str, str]] = {
    "info_log_path": "info_path",
    "debug_log_path": "debug_path",
    "syslog_facility": "syslog_facility",
    "deliver_log_format": "deliver_format",
    "mail_log_prefix": "prefix",
}
_LOG_PLACES: Final[Mapping[str, str]] = {"/dev/stderr": "stderr"}
_NOT_EMPTY: Final = {
    "hostname",
    "login_greeting",
    "auth_username_format",
    "mail_temp_dir",
    "mail_fsync",
}


def import_values(draft: Draft) -> None:
    """Take over what means the same."""
    for name, path in _DIRECT.items():
        if name not in draft.settings:
            continue
        value = draft.take(name)
        if not value and name in _NOT_EMPTY:
            continue
        _set(draft, name, path, value)


def _set(draft: Draft, name: str, path: str, value: str) -> None:
    """Set what means the same here, if it may have that value; else there is a note."""
    _, setting = find_setting(ServeSettings, tuple(path.split(".")), {})
    assert setting is not None, path
    try:
        reading = fit(setting, value)
    except ValueError as error:
        draft.note(name, f"{error}: left at the default")
        return
    table, _, key = path.rpartition(".")
    draft.table(f"[{table}]" if table else "").set(key, reading, f"{name} = {value}")


def import_near_values(draft: Draft) -> None:
    workarounds = draft.take("lmtp_client_workarounds").replace(",", " ").split()
    draft.seen |= {"haproxy_timeout", "maildir_copy_with_hardlinks"}
    known = [word for word in workarounds if word in {"whitespace-before-path", "mailbox-for-path"}]
    limits = draft.table("[limits]")
    limits.set(
        "client_workarounds",
        [*known, "missing-domain"],
        "lmtp_client_workarounds; Dovecot takes addresses without a domain, always",
    )
    timeout = draft.settings.get("mail_max_lock_timeout", "")
    draft.seen.add("mail_max_lock_timeout")
    if timeout and timeout.split()[0] != "0":
        draft.note(
            "mail_max_lock_timeout",
            f"{timeout}: set lock_timeout, which is 30 seconds, if that is too long",
        )
    for namespace in draft.root.find("namespace"):
        separator = namespace.get("separator")
        if namespace.get("inbox") == "yes" and len(separator) == 1:
            _set(draft, "namespace: separator", "mailbox_separator", separator)


def import_logs(draft: Draft) -> None:
    table = DraftTable()
    path = draft.take("log_path")
    if path:
        table.set("path", _LOG_PLACES.get(path, path), f"log_path = {path}")
    for name, key in _LOGS.items():
        value = draft.take(name)
        if not value:
            continue
        if key.endswith("_path"):
            value = _LOG_PLACES.get(value, value)
        _, setting = find_setting(ServeSettings, ("log", key), {})
        assert setting is not None, key
        try:
            fit(setting, value)
        except ValueError as error:
            draft.note(name, f"{error}: left at the default")
            continue
        table.set(key, value, f"{name} = {value}")
    timestamp = draft.take("log_timestamp").strip()
    if timestamp:
        table.set("timestamp", timestamp, f"log_timestamp = {timestamp}")
    if draft.take("mail_debug") == "yes":
        table.set("debug", True, "mail_debug = yes")
    rawlogs = draft.take("lmtp_rawlog_dir")
    if "%" in rawlogs:
        draft.note("lmtp_rawlog_dir", f"{rawlogs!r}: set log.rawlog_dir, one directory for all")
    elif rawlogs:
        table.set("rawlog_dir", rawlogs, f"lmtp_rawlog_dir = {rawlogs}")
    if table.lines:
        draft.add("[log]", table)


def import_mail_location(draft: Draft) -> None:
    location = draft.take("mail_location")
    driver, path = draft.take("mail_driver"), draft.take("mail_path")
    options: list[str] = []
    origin = f"mail_location = {location}"
    if location:
        driver, _, rest = location.partition(":")
        path, *options = rest.split(":")
    elif driver or path:
        origin = f"mail_driver = {driver}, mail_path = {path}"
    else:
        draft.note(
            "mail_location",
            "it is not set, so Dovecot looks for mail where it may be: set mail, such as"
            " '~/Maildir'",
        )
    if driver != "maildir":
        if driver:
            draft.note(
                "mail_location",
                f"mail in the format {driver} cannot be delivered to, only Maildirs: new mail"
                " goes to ~/Maildir; let Dovecot use it, too (mail_location ="
                " maildir:~/Maildir) and convert what there is (doveadm sync)",
            )
        path, options = "~/Maildir", []
    path = path.replace("%{home}", "~", 1) if path.startswith("%{home}") else path
    path = path.replace("%h", "~", 1) if path.startswith("%h") else path
    path = path.rstrip("/") or "~/Maildir"
    try:
        MailTemplate(path)
    except ValueError as error:
        draft.note(
            "mail_location", f"{path!r} cannot be taken over: {error}; set mail to another path"
        )
        path = "~/Maildir"
    draft.top.set("mail", path, origin)
    for option in options:
        name, _, value = option.partition("=")
        if name == "UTF-8":
            draft.top.set("mailbox_utf8", True, origin)
        elif name == "LAYOUT" and value != "maildir++":
            draft.note(
                "mail_location",
                f"LAYOUT={value} is not known here: mail for a detail goes to folders of Maildir++",
            )
        elif name == "INBOX" and value.rstrip("/") not in {path, ""}:
            draft.note(
                "mail_location",
                f"INBOX={value} is elsewhere: new mail goes to {path}, which Dovecot does not"
                " show as INBOX",
            )
    inbox = draft.take("mail_inbox_path")
    if inbox and driver == "maildir" and inbox.rstrip("/") != path:
        draft.note(
            "mail_inbox_path",
            f"{inbox} is elsewhere: new mail goes to {path}, which Dovecot does not show as INBOX",
        )
