"""The daemon, command `lmtp-server`; `python -m lmtp_server` is the same."""

__all__: list[str] = []
