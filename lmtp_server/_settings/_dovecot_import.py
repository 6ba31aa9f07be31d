"""Makes settings of Dovecot's.

The invariant: what is written is a settings file that can be read, and whatever of Dovecot's
settings bears on LMTP is in it or in the notes, with what to do.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from lmtp_server._users import MailTemplate, Text
from mailstore import QuotaPolicy

from ._doveconf import Section, read_doveconf
from ._dovecot_names import WITHOUT
from ._toml import toml_key, toml_value

# Where Dovecot's base_dir is if doveconf does not say.
_BASE_DIR: Final = "/run/dovecot"
_FSYNC: Final = {"always": "optimized", "optimized": "optimized", "never": "never"}
_HIDDEN: Final = "# hidden"
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
_DIRECT: Final[Mapping[str, str]] = {
    "hostname": "hostname",
    "login_greeting": "greeting",
    "recipient_delimiter": "recipient_delimiter",
    "auth_username_chars": "auth_username_chars",
    "auth_username_format": "auth_username_format",
    "lmtp_save_to_detail_mailbox": "save_to_detail_mailbox",
    "lda_mailbox_autocreate": "mailbox_autocreate",
    "lda_mailbox_autosubscribe": "mailbox_autosubscribe",
    "mailbox_list_utf8": "mailbox_utf8",
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
_NUMBERS: Final = {"first_valid_uid", "last_valid_uid", "first_valid_gid", "last_valid_gid"}
_FLAGS: Final = {"yes": True, "no": False}


@dataclass(slots=True)
class Imported:
    """A settings file, and what is not in it."""

    toml: str
    notes: list[str]


@dataclass(slots=True)
class _Table:
    """A table to write: lines and, by name, the tables in it, or several of the same name."""

    lines: list[str] = field(default_factory=list)

    def set(self, key: str, value: object, origin: str) -> None:
        """Set a key, with a comment that says what it was in Dovecot."""
        self.lines.append(f"# {_comment(origin)}")
        self.lines.append(f"{toml_key(key)} = {toml_value(value)}")

    def comment(self, text: str) -> None:
        """Add a comment."""
        self.lines += [f"# {_comment(line)}" for line in text.split("\n")]


def import_doveconf(text: str) -> Imported:
    """Make a settings file of what `doveconf -n` has written. Raises DovecotError."""
    conf = read_doveconf(text)
    return _Import(conf.root, conf.version).run()


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


class _Import:
    """One import. What is read of Dovecot's settings is taken off the list of those to tell of."""

    def __init__(self, root: Section, version: str) -> None:
        self._root = root
        self._version = version
        self._notes: list[str] = []
        self._seen: set[str] = set()
        self._tables: list[tuple[str, _Table]] = []
        self._top = self._table("")
        self._trace: _Table | None = None
        # What holds for LMTP: its own settings count more than those for all.
        self._settings = dict(root.settings)
        for section in root.find("protocol", "lmtp"):
            self._settings |= section.settings
        self._service = next(root.find("service", "lmtp"), Section("service", "lmtp"))
        self._certificate = False

    def run(self) -> Imported:
        """Do it."""
        self._top.comment(
            f"Made of the settings of Dovecot {self._version or '(version not known)'}"
            " by lmtp-server config import-dovecot."
        )
        self._direct()
        self._others()
        self._mail()
        self._service_settings()
        self._tls()
        self._listeners()
        self._userdbs()
        self._quota()
        self._left_over()
        return Imported(self._write(), self._notes)

    def _write(self) -> str:
        lines: list[str] = []
        for name, table in self._tables:
            if name:
                lines += ["", name]
            lines += table.lines
        return "\n".join([*lines, ""])

    def _table(self, name: str) -> _Table:
        table = _Table()
        self._tables.append((name, table))
        return table

    def _note(self, name: str, text: str) -> None:
        self._notes.append(_comment(f"{name}: {text}"))

    def _take(self, name: str) -> str:
        self._seen.add(name)
        return self._settings.get(name, "")

    # --- settings that mean the same -------------------------------------------------------------

    def _direct(self) -> None:
        for name, path in _DIRECT.items():
            if name not in self._settings:
                continue
            value = self._take(name)
            reading = self._reading(name, value)
            if reading is None:
                continue
            table, _, key = path.rpartition(".")
            self._at(table).set(key, reading, f"{name} = {value}")

    def _at(self, name: str) -> _Table:
        if not name:
            return self._top
        if self._trace is None:
            self._trace = self._table("[trace]")
        return self._trace

    def _reading(self, name: str, value: str) -> object:
        """The value as it is written here; None where it cannot be."""
        if value in _FLAGS and name not in {"hostname", "login_greeting"}:
            return _FLAGS[value]
        if name in _NUMBERS:
            if value.isdecimal() and (int(value) > 0 or name.startswith("last")):
                return int(value)
            self._note(name, f"{value!r} is no number that is allowed here: left at the default")
            return None
        if name == "lmtp_hdr_delivery_address" and value not in {"final", "original", "none"}:
            self._note(name, f"{value!r} is not known here: left at 'final'")
            return None
        if name == "auth_username_format":
            return self._with_variables(name, value)
        if name in {"auth_username_chars", "recipient_delimiter"} and not re.fullmatch(
            r"[!-~]*", value
        ):
            self._note(name, "only printable ASCII is allowed here: left at the default")
            return None
        if name == "recipient_delimiter" and re.search(r"[A-Za-z0-9@]", value):
            self._note(name, "letters, digits and '@' delimit nothing here: left at the default")
            return None
        if name == "login_greeting" and not (value.isascii() and value.isprintable()):
            self._note(name, "only printable ASCII is allowed here: left at the default")
            return None
        if name == "lda_original_recipient_header" and not re.fullmatch(r"[!-9;-~]*", value):
            self._note(name, f"{value!r} is no name of a header field")
            return None
        if name == "hostname" and not re.fullmatch(
            r"[A-Za-z0-9_]([A-Za-z0-9._\-]{0,253}[A-Za-z0-9_])?", value
        ):
            self._note(name, f"{value!r} is no name of a host: this machine's is taken")
            return None
        return value

    def _with_variables(self, name: str, value: str) -> str | None:
        try:
            Text(value)
        except ValueError as error:
            self._note(name, f"{value!r} cannot be taken over: {error}")
            return None
        return value

    def _others(self) -> None:
        fsync = self._take("mail_fsync")
        if fsync:
            self._top.set("fsync", _FSYNC.get(fsync, "optimized"), f"mail_fsync = {fsync}")
            if fsync == "always":
                self._note(
                    "mail_fsync", "always: all that a delivery writes is synced by optimized, too"
                )
        workarounds = self._take("lmtp_client_workarounds").replace(",", " ").split()
        self._seen.add("haproxy_timeout")
        known = [
            word for word in workarounds if word in {"whitespace-before-path", "mailbox-for-path"}
        ]
        limits = self._table("[limits]")
        limits.set(
            "client_workarounds",
            [*known, "missing-domain"],
            "lmtp_client_workarounds; Dovecot takes addresses without a domain, always",
        )
        timeout = self._settings.get("mail_max_lock_timeout", "")
        self._seen.add("mail_max_lock_timeout")
        if timeout and timeout.split()[0] != "0":
            self._note(
                "mail_max_lock_timeout",
                f"{timeout}: set lock_timeout, which is 30 seconds, if that is too long",
            )
        for namespace in self._root.find("namespace"):
            separator = namespace.get("separator")
            if namespace.get("inbox") == "yes" and len(separator) == 1:
                self._top.set("mailbox_separator", separator, f"namespace: separator = {separator}")

    # --- where mail lies -------------------------------------------------------------------------

    def _mail(self) -> None:
        location = self._take("mail_location")
        driver, path = self._take("mail_driver"), self._take("mail_path")
        options: list[str] = []
        origin = f"mail_location = {location}"
        if location:
            driver, _, rest = location.partition(":")
            path, *options = rest.split(":")
        elif driver or path:
            origin = f"mail_driver = {driver}, mail_path = {path}"
        else:
            self._note(
                "mail_location",
                "it is not set, so Dovecot looks for mail where it may be: set mail, such as"
                " '~/Maildir'",
            )
        if driver != "maildir":
            if driver:
                self._note(
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
            self._note(
                "mail_location", f"{path!r} cannot be taken over: {error}; set mail to another path"
            )
            path = "~/Maildir"
        self._top.set("mail", path, origin)
        for option in options:
            name, _, value = option.partition("=")
            if name == "UTF-8":
                self._top.set("mailbox_utf8", True, origin)
            elif name == "LAYOUT" and value != "maildir++":
                self._note(
                    "mail_location",
                    f"LAYOUT={value} is not known here: mail for a detail goes to folders of"
                    " Maildir++",
                )
            elif name == "INBOX" and value.rstrip("/") not in {path, ""}:
                self._note(
                    "mail_location",
                    f"INBOX={value} is elsewhere: new mail goes to {path}, which Dovecot does not"
                    " show as INBOX",
                )
        inbox = self._take("mail_inbox_path")
        if inbox and driver == "maildir" and inbox.rstrip("/") != path:
            self._note(
                "mail_inbox_path",
                f"{inbox} is elsewhere: new mail goes to {path}, which Dovecot does not show as"
                " INBOX",
            )

    # --- processes -------------------------------------------------------------------------------

    def _service_settings(self) -> None:
        service = self._service
        user, group = service.get("user"), service.get("group")
        origin = f"service lmtp: user = {user}"
        if user in {"", "root"}:
            user, group = self._take("mail_uid"), self._take("mail_gid")
            origin = f"mail_uid = {user}"
        self._seen |= {"mail_uid", "mail_gid"}
        if user not in {"", "0", "root", "$SET:default_internal_user"}:
            self._top.set("user", user, origin)
            if group:
                self._top.set("group", group, f"the group: {group}")
        count = service.get("process_min_avail")
        if count.isdecimal() and 0 < int(count) <= 1024:
            self._top.set("workers", int(count), f"service lmtp: process_min_avail = {count}")
        worker: _Table | None = None
        restart = service.get("service_count") or service.get("restart_request_count")
        clients = service.get("client_limit")
        memory = service.get("vsz_limit")
        limit = service.get("process_limit")
        for name, value, key in (
            ("process_limit", limit, "total_client_limit"),
            ("service_count", restart, "restart_after_connections"),
        ):
            if value.isdecimal() and int(value) > 1:
                worker = worker or self._table("[worker]")
                number = int(value)
                if name == "process_limit":
                    number *= int(clients) if clients.isdecimal() and int(clients) else 1
                worker.set(key, number, f"service lmtp: {name} = {value}")
        if clients.isdecimal() and int(clients) > 1:
            worker = worker or self._table("[worker]")
            worker.set("client_limit", int(clients), f"service lmtp: client_limit = {clients}")
        if memory:
            self._note(
                "service lmtp: vsz_limit",
                f"{memory} bounds addresses, worker.memory_limit what is in memory: messages are"
                " not held there, so a worker needs far less",
            )

    def _tls(self) -> None:
        self._seen |= {"ssl", "ssl_require_crl"}
        sections = [self._root, *self._root.find("ssl_server")]
        found: dict[str, str] = {}
        for key, names in {
            "certificate": ("ssl_cert", "ssl_server_cert_file", "ssl_cert_file"),
            "key": ("ssl_key", "ssl_server_key_file", "ssl_key_file"),
            "client_ca": ("ssl_ca", "ssl_server_ca_file", "ssl_ca_file"),
            "minimum_version": ("ssl_min_protocol",),
            "client_certificate_required": ("auth_ssl_require_client_cert",),
        }.items():
            self._seen.update(names)
            values = [section.get(name) for section in sections for name in names]
            found[key] = next(filter(None, values), "")
        if self._settings.get("ssl") == "no" or not found["certificate"]:
            return
        certificate = found["certificate"].removeprefix("<").strip()
        if not self._pair_is_known("ssl_cert", found["certificate"], found["key"]):
            return
        table = self._table("[tls]")
        self._certificate = True
        table.set("certificate", certificate, f"ssl_cert = {found['certificate']}")
        table.set("key", found["key"].removeprefix("<").strip(), "ssl_key")
        version = found["minimum_version"]
        if version in {"TLSv1.2", "TLSv1.3"}:
            table.set("minimum_version", version, f"ssl_min_protocol = {version}")
        elif version == "LATEST":
            table.set("minimum_version", "TLSv1.3", f"ssl_min_protocol = {version}")
        elif version:
            self._note("ssl_min_protocol", f"{version} is not spoken: the oldest is TLSv1.2")
        if found["client_ca"]:
            table.set("client_ca", found["client_ca"].removeprefix("<").strip(), "ssl_ca")
            if found["client_certificate_required"] == "yes":
                table.set("client_certificate_required", True, "auth_ssl_require_client_cert = yes")
        for local in self._root.find("local_name"):
            inner = [local, *local.find("ssl_server")]
            pair = [
                next(filter(None, (each.get(name) for each in inner for name in names)), "")
                for names in (
                    ("ssl_cert", "ssl_server_cert_file", "ssl_cert_file"),
                    ("ssl_key", "ssl_server_key_file", "ssl_key_file"),
                )
            ]
            if pair[0] and self._pair_is_known(f"local_name {local.argument}", *pair):
                named = self._table(f"[tls.names.{toml_value(local.argument)}]")
                named.set("certificate", pair[0].removeprefix("<").strip(), "local_name: ssl_cert")
                named.set("key", pair[1].removeprefix("<").strip(), "local_name: ssl_key")

    def _pair_is_known(self, name: str, certificate: str, key: str) -> bool:
        if key.startswith(_HIDDEN) or not key:
            self._note(
                name,
                "doveconf hides where the key is: without TLS for now; import the output of"
                " `doveconf -nP`, or write into the file: [tls], certificate ="
                f" {toml_value(certificate.removeprefix('<').strip())}, key = the path of the key",
            )
            return False
        if "-----BEGIN" in certificate + key:
            self._note(name, "the certificate stands in the settings: put it into a file")
            return False
        return True

    # --- listeners -------------------------------------------------------------------------------

    def _listeners(self) -> None:
        self._seen.add("protocols")
        protocols = self._root.words("protocols")
        if protocols and "lmtp" not in protocols:
            self._note("protocols", "lmtp is not among them: Dovecot does not listen for it")
        networks = self._networks("login_trusted_networks")
        proxies = self._networks("haproxy_trusted_networks")
        unix = list(self._service.find("unix_listener"))
        if not any(each.argument.rpartition("/")[2] == "lmtp" for each in unix):
            # doveconf does not tell of what is as it always is.
            unix.append(Section("unix_listener", "lmtp"))
        base = self._take("base_dir") or _BASE_DIR
        for section in unix:
            mode = section.get("mode") or "0666"
            if int(mode, 8) == 0 if re.fullmatch(r"0?[0-7]{1,4}", mode) else True:
                continue
            path = section.get("path") or section.argument
            path = path if path.startswith("/") else f"{base}/{path}"
            table = self._table("[[listener]]")
            table.set("address", f"unix:{path}", f"unix_listener {section.argument}")
            table.set("mode", f"{int(mode, 8) & 0o777:04o}", f"mode = {mode}")
            for key in ("user", "group"):
                value = section.get(key)
                if value and not value.startswith("$"):
                    table.set(key, value, f"{key} = {value}")
        for section in self._service.find("inet_listener"):
            self._inet_listener(section, networks, proxies)

    def _inet_listener(self, section: Section, networks: list[str], proxies: list[str]) -> None:
        port = section.get("port")
        name = f"inet_listener {section.argument}"
        if not port.isdecimal() or not 0 < int(port) < 65536:
            return
        hosts = (section.get("address") or section.get("listen")).replace(",", " ").split()
        hosts = hosts or section.words("listen") or self._root.words("listen") or ["*", "::"]
        for host in hosts:
            if port == "25":
                self._note(name, "port 25 is for SMTP, not for LMTP (RFC 2033 5): left out")
                continue
            host = {"*": "0.0.0.0", "[::]": "::"}.get(host, host).strip("[]")
            table = self._table("[[listener]]")
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            table.set("address", place, f"{name}: port = {port}")
            tls = section.get("ssl") or section.get("inet_listener_ssl")
            if tls == "yes" and self._certificate:
                table.set("tls", "implicit", f"{name}: ssl = yes")
            elif tls == "yes":
                self._note(name, "ssl = yes, but there is no certificate: without TLS for now")
            if section.get("haproxy") == "yes":
                if proxies:
                    table.set("proxies", proxies, "haproxy_trusted_networks")
                else:
                    self._note(name, "haproxy = yes, but no haproxy_trusted_networks: left out")
            if networks:
                table.set("trusted_networks", networks, "login_trusted_networks")

    def _networks(self, name: str) -> list[str]:
        from ._types import Network

        networks = []
        for word in self._take(name).replace(",", " ").split():
            try:
                networks.append(str(Network(word)))
            except ValueError as error:
                self._note(name, f"{word!r} is left out: {error}")
        return networks

    # --- users -----------------------------------------------------------------------------------

    def _userdbs(self) -> None:
        made = 0
        home = self._take("mail_home")
        for section in self._root.find("userdb"):
            driver = section.get("driver") or section.argument
            lines = self._userdb(driver, section, home)
            if lines is not None:
                self._tables.append(("[[userdb]]", lines))
                made += 1
        if made or not self._needs_userdb(home):
            return
        table = _Table()
        table.set("driver", "static", "there is no userdb that can be taken over")
        if home and self._home_is_good("mail_home", home):
            table.set("home", home.rstrip("/"), f"mail_home = {home}")
            self._note(
                "userdb",
                "every address has a mailbox now: the MTA has to refuse the others, or list the"
                " users in a file and name it in the userdb: users = PATH",
            )
        else:
            table = _Table()
            table.set("driver", "system", "there is no userdb that can be taken over")
            self._note("userdb", "the accounts of this machine are the users now")
        self._tables.append(("[[userdb]]", table))

    def _needs_userdb(self, home: str) -> bool:
        return (
            bool(list(self._root.find("userdb")))
            or bool(home)
            or any(line.startswith('mail = "~') for line in self._top.lines)
        )

    def _home_is_good(self, name: str, home: str) -> bool:
        try:
            return MailTemplate(home).root is not None
        except ValueError as error:
            self._note(name, f"{home!r} cannot be taken over: {error}")
            return False

    def _userdb(self, driver: str, section: Section, home: str) -> _Table | None:
        table = _Table()
        arguments = section.get("args")
        fields = _fields_of(section, "fields")
        defaults = _words_to_fields(section.get("default_fields"))
        overrides = _words_to_fields(section.get("override_fields"))
        match driver:
            case "static":
                fields |= _words_to_fields(arguments)
                table.set("driver", "static", f"userdb static {arguments}".rstrip())
                self._static(table, fields, home)
            case "passwd-file":
                if not self._passwd_file(table, section, arguments):
                    return None
                overrides |= fields
                if home and "home" not in defaults:
                    defaults["home"] = home.rstrip("/")
            case "passwd":
                table.set("driver", "system", "userdb passwd")
                overrides |= fields
            case "prefetch":
                return None
            case _:
                self._note(f"userdb {driver}", WITHOUT.get(f"userdb {driver}", "it is not known"))
                return None
        for key, texts in (("default_fields", defaults), ("override_fields", overrides)):
            kept = self._texts(f"userdb {driver}: {key}", texts)
            if kept:
                table.set(key, kept, f"userdb: {key}")
        for key, allowed in (
            ("skip", {"never", "found", "notfound"}),
            *(
                (name, _RULES)
                for name in ("result_success", "result_failure", "result_internalfail")
            ),
        ):
            value = section.get(key)
            if value in allowed:
                table.set(key, value, f"userdb: {key} = {value}")
        return table

    def _static(self, table: _Table, fields: dict[str, str], home: str) -> None:
        everybody = fields.pop("allow_all_users", "no") == "yes"
        home = fields.pop("home", "") or home
        if home and self._home_is_good("userdb static: home", home):
            table.set("home", home.rstrip("/") or home, f"home = {home}")
        mail = fields.pop("mail", "")
        if mail:
            self._note("userdb static", f"mail = {mail}: set mail in the userdb, as a path")
        kept = self._texts("userdb static", fields)
        if kept:
            table.set("fields", kept, "userdb static")
        if not everybody:
            self._note(
                "userdb static",
                "every address has a mailbox: Dovecot looks whether there is a password; let the"
                " MTA refuse the others, or list the users in a file and name it: users = PATH",
            )

    def _passwd_file(self, table: _Table, section: Section, arguments: str) -> bool:
        path = section.get("passwd_file_path")
        formats = [section.get("username_format"), section.get("auth_username_format")]
        for word in arguments.split():
            key, equals, value = word.partition("=")
            if not equals:
                path = path or word
            elif key == "username_format":
                formats.insert(0, value)
        if not path.startswith("/") or self._with_variables("userdb passwd-file", path) is None:
            self._note("userdb passwd-file", f"{path!r} is no absolute path: left out")
            return False
        table.set("driver", "passwd-file", f"userdb passwd-file {arguments}".rstrip())
        table.set("path", path, f"the file: {path}")
        name = next(filter(None, formats), "")
        if name and self._with_variables("userdb passwd-file: username_format", name) is not None:
            table.set("username_format", name, f"username_format = {name}")
        return True

    def _texts(self, name: str, fields: Mapping[str, str]) -> dict[str, str]:
        return {
            key: value
            for key, value in fields.items()
            if self._with_variables(f"{name}: {key}", value) is not None
        }

    # --- quota -----------------------------------------------------------------------------------

    def _quota(self) -> None:
        plugin = Section()
        for section in self._root.find("plugin"):
            plugin.settings |= section.settings
        for protocol in self._root.find("protocol", "lmtp"):
            for section in protocol.find("plugin"):
                plugin.settings |= section.settings
        plugins = self._root.words("mail_plugins")
        for protocol in self._root.find("protocol", "lmtp"):
            plugins += protocol.words("mail_plugins")
        self._seen |= {"mail_plugins", *(name for name in self._settings if name[:6] == "quota_")}
        self._plugins(plugins)
        lines = _Table()
        quotas = list(self._root.find("quota"))
        if quotas:
            self._new_quota(lines, quotas[0])
            for other in quotas[1:]:
                self._note(f"quota {other.argument}", "there is one quota for each user: left out")
        elif "quota" in plugin.settings:
            self._old_quota(lines, plugin)
        if self._settings.get("quota_full_tempfail") == "yes":
            lines.set("full_tempfail", True, "quota_full_tempfail = yes")
        if lines.lines:
            if "quota" not in plugins and not quotas:
                self._note("plugin: quota", "the plugin is not loaded for LMTP: left out")
                return
            self._tables.append(("[quota]", lines))

    def _plugins(self, plugins: list[str]) -> None:
        for name in dict.fromkeys(plugins):
            if name in {"sieve", "zlib", "mail_compress", "mail_crypt", "mail_log", "notify"}:
                self._note(
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

    def _old_quota(self, table: _Table, plugin: Section) -> None:
        backend = plugin.get("quota")
        rules = [
            plugin.get(name).replace("%%", "%")
            for name in sorted(plugin.settings, key=_rule_number)
            if re.fullmatch(r"quota_rule[0-9]*", name)
        ]
        self._rules(table, rules, "quota_rule")
        self._quota_backend(table, backend)
        for name, key in (
            ("quota_grace", "grace"),
            ("quota_max_mail_size", "max_mail_size"),
            ("quota_exceeded_message", "exceeded_message"),
        ):
            self._quota_value(table, name, key, plugin.get(name).replace("%%", "%"))
        for name in plugin.settings:
            if re.fullmatch(r"quota_warning[0-9]*", name):
                self._warning(table, name, plugin.get(name).replace("%%", "%"))

    def _new_quota(self, table: _Table, quota: Section) -> None:
        limits = []
        for name, key in (("quota_storage_size", "storage"), ("quota_message_count", "messages")):
            value = quota.get(name) or self._settings.get(name, "")
            if value and value not in {"0", "unlimited"}:
                limits.append(f"{key}={_amount(value)}")
        if limits:
            self._rules(table, [f"*:{':'.join(limits)}"], "quota_storage_size, quota_message_count")
        self._quota_backend(table, quota.get("quota_driver") or quota.get("driver") or "count")
        for name, key in (
            ("quota_storage_grace", "grace"),
            ("quota_mail_size", "max_mail_size"),
            ("quota_exceeded_message", "exceeded_message"),
        ):
            value = quota.get(name) or self._settings.get(name, "")
            self._quota_value(
                table, name, key, value if key == "exceeded_message" else _amount(value)
            )
        for section in [*quota.find("quota_warning"), *quota.find("warning")]:
            self._warning(table, f"quota_warning {section.argument}", "its execute section")
        for mailbox in (box for space in self._root.find("namespace") for box in space.sections):
            for name in mailbox.settings:
                if name.startswith("quota_"):
                    self._note(
                        f"mailbox {mailbox.argument}: {name}",
                        "write a rule for the folder in quota.rules, such as 'Trash:storage=+10%'",
                    )

    def _rules(self, table: _Table, rules: list[str], origin: str) -> None:
        good: list[str] = []
        for rule in rules:
            try:
                QuotaPolicy.parse(*good, rule)
            except ValueError as error:
                self._note(origin, f"{rule!r} is left out: {error}")
            else:
                good.append(rule)
        if good:
            table.set("rules", good, origin)

    def _quota_value(self, table: _Table, name: str, key: str, value: str) -> None:
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
            self._note(name, f"{value!r} is left out: {error}")
            return
        table.set(key, value, f"{name} = {value}")

    def _quota_backend(self, table: _Table, backend: str) -> None:
        driver = backend.partition(":")[0]
        redis = re.search(r"redis:(.*)$", backend)
        if driver == "dict" and redis is not None:
            options = dict(part.partition("=")[::2] for part in redis[1].split(":") if "=" in part)
            host, port = options.get("host", "127.0.0.1"), options.get("port", "6379")
            table.set("backend", "redis", f"quota = {backend}")
            table.set("url", f"redis://{host}:{port}/0", "the server")
            table.set("prefix", options.get("prefix", ""), "the prefix of the keys")
        elif driver != "maildir":
            self._note(
                "quota",
                f"the backend {driver} counts where only Dovecot does: here it is counted in"
                " maildirsize; let Dovecot do so, too (2.3: quota = maildir:User quota)",
            )

    def _warning(self, table: _Table, name: str, value: str) -> None:
        threshold = value.split()[0] if value.split() else "storage=95%"
        table.comment(f"{name} = {value}")
        self._note(
            name,
            f"{value}: a service of Dovecot's is called, which is not there; write a table"
            f" [[quota.warnings]] with at = '{threshold}' and command = ['PROGRAM', ...]",
        )

    # --- what is left ----------------------------------------------------------------------------

    def _left_over(self) -> None:
        others = []
        for name, value in self._settings.items():
            if name in self._seen:
                continue
            if name in WITHOUT:
                self._note(name, WITHOUT[name])
            elif _OTHERS.match(name):
                others.append(name)
            else:
                self._note(
                    name, f"{value!r}: there is nothing like it here; look whether it matters"
                )
        others += [
            f"{section.name} {section.argument}".rstrip()
            for section in self._root.sections
            if section.name in {"passdb", "service", "protocol", "metric", "plugin"}
            and section.argument != "lmtp"
        ]
        for section in self._root.find("plugin"):
            others += [
                f"plugin: {name}" for name in section.settings if not name.startswith("quota")
            ]
        if others:
            self._note("not about LMTP", ", ".join(dict.fromkeys(others)))


_RULES: Final = frozenset(
    {"return-ok", "return-fail", "return", "continue-ok", "continue-fail", "continue"}
)


def _fields_of(section: Section, name: str) -> dict[str, str]:
    """Dovecot 2.4's `fields { uid = vmail }`."""
    return {key: value for inner in section.find(name) for key, value in inner.settings.items()}


def _words_to_fields(text: str) -> dict[str, str]:
    """Dovecot 2.3's `uid=vmail gid=vmail home=/srv/%n`."""
    pairs: Iterator[tuple[str, str, str]] = (word.partition("=") for word in text.split())
    return {key: value for key, equals, value in pairs if equals}


def _rule_number(name: str) -> int:
    digits = name.removeprefix("quota_rule")
    return int(digits) if digits.isdecimal() else 1


def _amount(text: str) -> str:
    """Dovecot 2.4's `10 M` and `1 GB` as `10M`, `1G`."""
    return re.sub(r"\s*([BKMGT])i?B?$", r"\1", text.strip(), flags=re.IGNORECASE)
