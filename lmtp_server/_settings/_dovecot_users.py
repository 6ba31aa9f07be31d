"""Dovecot's `userdb`s."""

from collections.abc import Iterator
from typing import Final

from lmtp_server._users import MailTemplate, Rule, Skip

from ._doveconf import Section
from ._dovecot_draft import Draft, DraftTable
from ._dovecot_names import WITHOUT

_RULES: Final = frozenset(Rule)


def import_userdbs(draft: Draft) -> None:
    """Take the userdbs over. Where one cannot be, its users must not be refused for good."""
    home = draft.take("mail_home")
    known = 0
    unknown = 0
    for section in draft.root.find("userdb"):
        driver = section.get("driver") or section.argument
        if driver == "prefetch":
            continue
        table = _userdb(draft, driver, section, home)
        if table is None:
            unknown += 1
        else:
            draft.add("[[userdb]]", table)
            known += 1
    if unknown or (not known and _needs_userdb(draft, home)):
        _everybody(draft, home)


def _everybody(draft: Draft, home: str) -> None:
    table = draft.table("[[userdb]]")
    at_home = any(line.startswith('mail = "~') for line in draft.top.lines)
    if at_home and not (home and _home_is_good(draft, "mail_home", home)):
        table.set("driver", "system", "there is no userdb that says more")
        draft.note("userdb", "the accounts of this machine are the users now")
        return
    table.set("driver", "static", "there is no userdb that says more")
    if home and _home_is_good(draft, "mail_home", home):
        table.set("home", home.rstrip("/"), f"mail_home = {home}")
    draft.note(
        "userdb",
        "every address has a mailbox now: the MTA has to refuse the others, or list the users in a"
        " file and name it in the userdb: users = PATH",
    )


def _needs_userdb(draft: Draft, home: str) -> bool:
    return (
        bool(list(draft.root.find("userdb")))
        or bool(home)
        or any(line.startswith('mail = "~') for line in draft.top.lines)
    )


def _home_is_good(draft: Draft, name: str, home: str) -> bool:
    try:
        return MailTemplate(home).root is not None
    except ValueError as error:
        draft.note(name, f"{home!r} cannot be taken over: {error}")
        return False


def _userdb(draft: Draft, driver: str, section: Section, home: str) -> DraftTable | None:
    table = DraftTable()
    arguments = section.get("args")
    fields, defaults = _fields_of(section)
    defaults |= _words_to_fields(section.get("default_fields"))
    overrides = _words_to_fields(section.get("override_fields"))
    match driver:
        case "static":
            fields |= _words_to_fields(arguments)
            table.set("driver", "static", f"userdb static {arguments}".rstrip())
            _static(draft, table, section, fields, home)
        case "passwd-file":
            if not _passwd_file(draft, table, section, arguments):
                return None
            overrides |= fields
            if home and "home" not in defaults:
                defaults["home"] = home.rstrip("/")
        case "passwd":
            table.set("driver", "system", "userdb passwd")
            overrides |= fields
        case _:
            draft.note(f"userdb {driver}", WITHOUT.get(f"userdb {driver}", "it is not known"))
            return None
    for key, texts in (("default_fields", defaults), ("override_fields", overrides)):
        kept = draft.texts(f"userdb {driver}: {key}", texts)
        if kept:
            table.set(key, kept, f"userdb: {key}")
    for key, allowed in (
        ("skip", frozenset(Skip)),
        *((name, _RULES) for name in ("result_success", "result_failure", "result_internalfail")),
    ):
        value = section.get(key)
        if value in allowed:
            table.set(key, value, f"userdb: {key} = {value}")
    return table


def _static(
    draft: Draft, table: DraftTable, section: Section, fields: dict[str, str], home: str
) -> None:
    everybody = "yes" in {
        fields.pop("allow_all_users", "no"),
        section.get("userdb_static_allow_all_users"),
        section.get("static_allow_all_users"),
    }
    home = fields.pop("home", "") or home
    if home and _home_is_good(draft, "userdb static: home", home):
        table.set("home", home.rstrip("/") or home, f"home = {home}")
    mail = fields.pop("mail", "")
    if mail:
        draft.note("userdb static", f"mail = {mail}: set mail in the userdb, as a path")
    kept = draft.texts("userdb static", fields)
    if kept:
        table.set("fields", kept, "userdb static")
    if not everybody:
        draft.note(
            "userdb static",
            "every address has a mailbox: Dovecot looks whether there is a password; let the"
            " MTA refuse the others, or list the users in a file and name it: users = PATH",
        )


def _passwd_file(draft: Draft, table: DraftTable, section: Section, arguments: str) -> bool:
    path = section.get("passwd_file_path")
    formats = [section.get("username_format"), section.get("auth_username_format")]
    for word in arguments.split():
        key, equals, value = word.partition("=")
        if not equals:
            path = path or word
        elif key == "username_format":
            formats.insert(0, value)
    if not path.startswith("/") or draft.with_variables("userdb passwd-file", path) is None:
        draft.note("userdb passwd-file", f"{path!r} is no absolute path: left out")
        return False
    table.set("driver", "passwd-file", f"userdb passwd-file {arguments}".rstrip())
    table.set("path", path, f"the file: {path}")
    name = next(filter(None, formats), "")
    if name and draft.with_variables("userdb passwd-file: username_format", name) is not None:
        table.set("username_format", name, f"username_format = {name}")
    return True


def _fields_of(section: Section) -> tuple[dict[str, str], dict[str, str]]:
    """Dovecot 2.4's `fields { uid = vmail }`, and those that are defaults, as `uid:default`."""
    fields: dict[str, str] = {}
    defaults: dict[str, str] = {}
    for inner in section.find("fields"):
        for name, value in inner.settings.items():
            key, _, suffix = name.partition(":")
            (defaults if suffix == "default" else fields)[key] = value
    return fields, defaults


def _words_to_fields(text: str) -> dict[str, str]:
    """Dovecot 2.3's `uid=vmail gid=vmail home=/srv/%n`."""
    pairs: Iterator[tuple[str, str, str]] = (word.partition("=") for word in text.split())
    return {key: value for key, equals, value in pairs if equals}
