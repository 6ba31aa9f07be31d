"""Which version of the distribution runs."""


def own_version() -> str:
    """The version, as pip tells it; "unknown" where the distribution is not installed, or this
    process cannot read what says so."""
    try:
        # It brings half a megabyte along, for what few processes tell.
        from importlib.metadata import version

        return version("lmtp-proto")
    except (ImportError, OSError):
        return "unknown"
