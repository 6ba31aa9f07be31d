"""Dovecot's quota, as 2.3 and as 2.4 write it."""

import re
from collections.abc import Iterator

from mailstore import QuotaPolicy

from ._doveconf import Section
from ._dovecot_draft import Draft, DraftTable


def import_quota(draft: Draft) -> None:
    plugin = Section()
    for section in draft.root.find("plugin"):
        plugin.settings |= section.settings
    for protocol in draft.root.find("protocol", "lmtp"):
        for section in protocol.find("plugin"):
            plugin.settings |= section.settings
    plugins = draft.root.words("mail_plugins")
    for protocol in draft.root.find("protocol", "lmtp"):
        plugins += protocol.words("mail_plugins")
    draft.seen |= {"mail_plugins", *(name for name in draft.settings if name[:6] == "quota_")}
    _plugins(draft, plugins)
    lines = DraftTable()
    quotas = list(draft.root.find("quota"))
    is_new = bool(quotas) or "quota_storage_size" in draft.settings
    if is_new:
        _new_quota(draft, lines, quotas[0] if quotas else Section("quota"))
        for other in quotas[1:]:
            draft.note(f"quota {other.argument}", "there is one quota for each user: left out")
    elif "quota" in plugin.settings:
        _old_quota(draft, lines, plugin)
    if draft.settings.get("quota_full_tempfail") == "yes":
        lines.set("full_tempfail", True, "quota_full_tempfail = yes")
    if lines.lines:
        if "quota" not in plugins and not is_new:
            draft.note("plugin: quota", "the plugin is not loaded for LMTP: left out")
            return
        draft.add("[quota]", lines)


def _plugins(draft: Draft, plugins: list[str]) -> None:
    for name in dict.fromkeys(plugins):
        if name in {"sieve", "zlib", "mail_compress", "mail_crypt", "mail_log", "notify"}:
            draft.note(
                f"mail_plugins: {name}",
                {
                    "sieve": "there is no Sieve yet: all mail goes to the INBOX, or to the"
                    " mailbox of the detail",
                    "zlib": "mail is stored as it is, which Dovecot reads as well",
                    "mail_compress": "mail is stored as it is, which Dovecot reads as well",
                    "mail_crypt": "mail is stored as it is, not encrypted: do not change over"
                    " if it has to be",
                }.get(name, "there is no such plugin here"),
            )


def _old_quota(draft: Draft, table: DraftTable, plugin: Section) -> None:
    backend = plugin.get("quota")
    rules = [
        plugin.get(name).replace("%%", "%")
        for name in sorted(plugin.settings, key=_rule_number)
        if re.fullmatch(r"quota_rule[0-9]*", name)
    ]
    _rules(draft, table, rules, "quota_rule")
    _quota_backend(draft, table, backend)
    for name, key in (
        ("quota_grace", "grace"),
        ("quota_max_mail_size", "max_mail_size"),
        ("quota_exceeded_message", "exceeded_message"),
    ):
        _quota_value(draft, table, name, key, plugin.get(name).replace("%%", "%"))
    for name in plugin.settings:
        if re.fullmatch(r"quota_warning[0-9]*", name):
            _warning(draft, table, name, plugin.get(name).replace("%%", "%"))


def _new_quota(draft: Draft, table: DraftTable, quota: Section) -> None:
    limits = []
    for name, key in (("quota_storage_size", "storage"), ("quota_message_count", "messages")):
        value = quota.get(name) or draft.settings.get(name, "")
        if value and value not in {"0", "unlimited"}:
            limits.append(f"{key}={_amount(value)}")
    if limits:
        folders = list(_folder_rules(draft))
        _rules(draft, table, [f"*:{':'.join(limits)}", *folders], "quota_storage_size and others")
    _quota_backend(draft, table, quota.get("quota_driver") or quota.get("driver") or "count")
    for name, key in (
        ("quota_storage_grace", "grace"),
        ("quota_mail_size", "max_mail_size"),
        ("quota_exceeded_message", "exceeded_message"),
    ):
        value = quota.get(name) or draft.settings.get(name, "")
        _quota_value(
            draft, table, name, key, value if key == "exceeded_message" else _amount(value)
        )
    for section in [*quota.find("quota_warning"), *quota.find("warning")]:
        _warning(draft, table, f"quota_warning {section.argument}", _threshold(section))


def _threshold(section: Section) -> str:
    """A warning of Dovecot 2.4 as 2.3 has it."""
    percentage = section.get("quota_storage_percentage") or "95"
    under = section.get("quota_warning_threshold") or section.get("threshold")
    return f"{'-' if under == 'under' else ''}storage={percentage}%"


def _folder_rules(draft: Draft) -> Iterator[str]:
    """How much more there may be for mail to go into a mailbox."""
    namespaces = draft.root.find("namespace")
    for mailbox in [
        *draft.root.find("mailbox"),
        *(box for namespace in namespaces for box in namespace.find("mailbox")),
    ]:
        extra = mailbox.get("quota_storage_extra")
        percentage = mailbox.get("quota_storage_percentage")
        if extra:
            yield f"{mailbox.argument}:storage=+{_amount(extra)}"
        elif percentage.isdecimal() and int(percentage) != 100:
            yield f"{mailbox.argument}:storage={int(percentage) - 100:+d}%"
        elif mailbox.get("quota_ignore") == "yes":
            yield f"{mailbox.argument}:ignore"


def _rules(draft: Draft, table: DraftTable, rules: list[str], origin: str) -> None:
    good: list[str] = []
    for rule in rules:
        try:
            QuotaPolicy.parse(*good, rule)
        except ValueError as error:
            draft.note(origin, f"{rule!r} is left out: {error}")
        else:
            good.append(rule)
    if good:
        table.set("rules", good, origin)


def _quota_value(draft: Draft, table: DraftTable, name: str, key: str, value: str) -> None:
    if not value:
        return
    try:
        # Whether it can be taken over.
        match key:
            case "grace":
                QuotaPolicy.parse(grace=value)
            case "max_mail_size":
                size = QuotaPolicy.parse(mail_size=value).mail_size
                table.set(key, size, f"{name} = {value}")
                return
            case _:
                QuotaPolicy.parse(exceeded_message=value)
    except ValueError as error:
        draft.note(name, f"{value!r} is left out: {error}")
        return
    table.set(key, value, f"{name} = {value}")


def _quota_backend(draft: Draft, table: DraftTable, backend: str) -> None:
    driver = backend.partition(":")[0]
    redis = re.search(r"redis:(.*)$", backend)
    if driver == "dict" and redis is not None:
        options = dict(part.partition("=")[::2] for part in redis[1].split(":") if "=" in part)
        host, port = options.get("host", "127.0.0.1"), options.get("port", "6379")
        table.set("backend", "redis", f"quota = {backend}")
        table.set("url", f"redis://{host}:{port}/0", "the server")
        table.set("prefix", options.get("prefix", ""), "the prefix of the keys")
    elif driver != "maildir":
        draft.note(
            "quota",
            f"the backend {driver} counts where only Dovecot does: here it is counted in"
            " maildirsize; let Dovecot do so, too (2.3: quota = maildir:User quota)",
        )


def _warning(draft: Draft, table: DraftTable, name: str, value: str) -> None:
    threshold = value.split()[0] if value.split() else "storage=95%"
    table.comment(f"{name} = {value}")
    draft.note(
        name,
        f"{value}: a service of Dovecot's is called, which is not there; write a table"
        f" [[quota.warnings]] with at = '{threshold}' and command = ['PROGRAM', ...]",
    )


def _rule_number(name: str) -> int:
    digits = name.removeprefix("quota_rule")
    return int(digits) if digits.isdecimal() else 1


def _amount(text: str) -> str:
    """Dovecot 2.4's `10 M` and `1 GB` as `10M`, `1G`."""
    return re.sub(r"\s*([BKMGT])i?B?$", r"\1", text.strip(), flags=re.IGNORECASE)
