"""Dovecot's `service lmtp`, its listeners and its certificates."""

import re
from typing import Final

from ._doveconf import Section
from ._dovecot_draft import Draft
from ._toml import toml_value
from ._types import Network

# Where Dovecot's base_dir is if doveconf does not say.
_BASE_DIR: Final = "/run/dovecot"
_HIDDEN: Final = "# hidden"


def import_service(draft: Draft) -> None:
    service = draft.service
    user, group = service.get("user"), service.get("group")
    origin = f"service lmtp: user = {user}"
    if user in {"", "root"}:
        user, group = draft.take("mail_uid"), draft.take("mail_gid")
        origin = f"mail_uid = {user}"
    draft.seen |= {"mail_uid", "mail_gid"}
    if user not in {"", "0", "root", "$SET:default_internal_user"}:
        draft.top.set("user", user, origin)
        if group:
            draft.top.set("group", group, f"the group: {group}")
    count = service.get("process_min_avail")
    if count.isdecimal() and 0 < int(count) <= 1024:
        draft.top.set("workers", int(count), f"service lmtp: process_min_avail = {count}")
    restart = service.get("service_count") or service.get("restart_request_count")
    clients = service.get("client_limit")
    memory = service.get("vsz_limit")
    limit = service.get("process_limit")
    if clients.isdecimal() and int(clients) > 1:
        draft.table("[limits]").set(
            "client_limit", int(clients), f"service lmtp: client_limit = {clients}"
        )
    if limit.isdecimal() and int(limit) > 1:
        each = int(clients) if clients.isdecimal() and int(clients) else 1
        draft.table("[limits]").set(
            "total_client_limit",
            int(limit) * each,
            f"service lmtp: process_limit = {limit}, times client_limit",
        )
    if restart.isdecimal() and int(restart) > 1:
        draft.table("[worker]").set(
            "max_connections", int(restart), f"service lmtp: service_count = {restart}"
        )
    if memory:
        draft.note(
            "service lmtp: vsz_limit",
            f"{memory} bounds addresses, worker.memory_limit what is in memory: messages are"
            " not held there, so a worker needs far less",
        )


def import_tls(draft: Draft) -> None:
    draft.seen |= {"ssl", "ssl_require_crl"}
    sections = [draft.root, *draft.root.find("ssl_server")]
    found: dict[str, str] = {}
    for key, names in {
        "certificate": ("ssl_cert", "ssl_server_cert_file", "ssl_cert_file"),
        "key": ("ssl_key", "ssl_server_key_file", "ssl_key_file"),
        "client_ca": ("ssl_ca", "ssl_server_ca_file", "ssl_ca_file"),
        "minimum_version": ("ssl_min_protocol",),
        "verify": ("auth_ssl_require_client_cert",),
    }.items():
        draft.seen.update(names)
        values = [section.get(name) for section in sections for name in names]
        found[key] = next(filter(None, values), "")
    if draft.settings.get("ssl") == "no" or not found["certificate"]:
        return
    certificate = found["certificate"].removeprefix("<").strip()
    if not _pair_is_known(draft, "ssl_cert", found["certificate"], found["key"]):
        return
    table = draft.table("[tls]")
    draft.has_certificate = True
    table.set("certificate", certificate, f"ssl_cert = {found['certificate']}")
    table.set("key", found["key"].removeprefix("<").strip(), "ssl_key")
    version = found["minimum_version"]
    if version in {"TLSv1.2", "TLSv1.3"}:
        table.set("minimum_version", version, f"ssl_min_protocol = {version}")
    elif version == "LATEST":
        table.set("minimum_version", "TLSv1.3", f"ssl_min_protocol = {version}")
    elif version:
        draft.note("ssl_min_protocol", f"{version} is not spoken: the oldest is TLSv1.2")
    if found["client_ca"]:
        table.set("client_ca", found["client_ca"].removeprefix("<").strip(), "ssl_ca")
        if found["verify"] == "yes":
            table.set("verify", True, "auth_ssl_require_client_cert = yes")
    for local in draft.root.find("local_name"):
        inner = [local, *local.find("ssl_server")]
        pair = [
            next(filter(None, (each.get(name) for each in inner for name in names)), "")
            for names in (
                ("ssl_cert", "ssl_server_cert_file", "ssl_cert_file"),
                ("ssl_key", "ssl_server_key_file", "ssl_key_file"),
            )
        ]
        if pair[0] and _pair_is_known(draft, f"local_name {local.argument}", *pair):
            named = draft.table(f"[tls.sni.{toml_value(local.argument)}]")
            named.set("certificate", pair[0].removeprefix("<").strip(), "local_name: ssl_cert")
            named.set("key", pair[1].removeprefix("<").strip(), "local_name: ssl_key")


def _pair_is_known(draft: Draft, name: str, certificate: str, key: str) -> bool:
    if key.startswith(_HIDDEN) or not key:
        draft.note(
            name,
            "doveconf hides where the key is: without TLS for now; import the output of"
            " `doveconf -nP`, or write into the file: [tls], certificate ="
            f" {toml_value(certificate.removeprefix('<').strip())}, key = the path of the key",
        )
        return False
    if "-----BEGIN" in certificate + key:
        draft.note(name, "the certificate stands in the settings: put it into a file")
        return False
    return True


def import_listeners(draft: Draft) -> None:
    draft.seen.add("protocols")
    protocols = draft.root.words("protocols")
    if protocols and "lmtp" not in protocols:
        draft.note("protocols", "lmtp is not among them: Dovecot does not listen for it")
    networks = _networks(draft, "login_trusted_networks")
    proxies = _networks(draft, "haproxy_trusted_networks")
    unix = list(draft.service.find("unix_listener"))
    base = draft.take("base_dir") or _BASE_DIR
    if not any(each.argument in {"lmtp", f"{base}/lmtp"} for each in unix):
        # doveconf does not tell of what is as it always is.
        unix.append(Section("unix_listener", "lmtp"))
    for section in unix:
        mode = section.get("mode") or "0666"
        if int(mode, 8) == 0 if re.fullmatch(r"0?[0-7]{1,4}", mode) else True:
            continue
        path = section.get("path") or section.argument
        path = path if path.startswith("/") else f"{base}/{path}"
        table = draft.table("[[listener]]")
        table.set("address", f"unix:{path}", f"unix_listener {section.argument}")
        table.set("mode", f"{int(mode, 8) & 0o777:04o}", f"mode = {mode}")
        for key in ("user", "group"):
            value = section.get(key)
            if value and not value.startswith("$"):
                table.set(key, value, f"{key} = {value}")
    for section in draft.service.find("inet_listener"):
        _inet_listener(draft, section, networks, proxies)


def _inet_listener(draft: Draft, section: Section, networks: list[str], proxies: list[str]) -> None:
    port = section.get("port")
    name = f"inet_listener {section.argument}"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        return
    hosts = (section.get("address") or section.get("listen")).replace(",", " ").split()
    hosts = hosts or section.words("listen") or draft.root.words("listen") or ["*", "::"]
    for host in hosts:
        if port == "25":
            draft.note(name, "port 25 is for SMTP, not for LMTP (RFC 2033 5): left out")
            continue
        host = {"*": "0.0.0.0", "[::]": "::"}.get(host, host).strip("[]")
        table = draft.table("[[listener]]")
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        table.set("address", place, f"{name}: port = {port}")
        tls = section.get("ssl") or section.get("inet_listener_ssl")
        if tls == "yes" and draft.has_certificate:
            table.set("tls", "implicit", f"{name}: ssl = yes")
        elif tls == "yes":
            draft.note(name, "ssl = yes, but there is no certificate: without TLS for now")
        elif draft.has_certificate:
            table.set("tls", "starttls", "ssl is not off: STARTTLS is offered")
        if section.get("haproxy") == "yes":
            if proxies:
                table.set("proxy_networks", proxies, "haproxy_trusted_networks")
            else:
                draft.note(name, "haproxy = yes, but no haproxy_trusted_networks: left out")
        if networks:
            table.set("trusted_networks", networks, "login_trusted_networks")


def _networks(draft: Draft, name: str) -> list[str]:
    networks = []
    for word in draft.take(name).replace(",", " ").split():
        try:
            networks.append(str(Network(word)))
        except ValueError as error:
            draft.note(name, f"{word!r} is left out: {error}")
    return networks
