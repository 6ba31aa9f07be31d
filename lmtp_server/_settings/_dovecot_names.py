"""Dovecot's names of settings, and what there is here in their place."""


def hint(name: str) -> str:
    """What to write here for Dovecot's setting `name`; empty where it is not known."""
    return ""
