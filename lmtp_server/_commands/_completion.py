"""The command `completion`: what a shell needs to complete the command line."""

import argparse
import importlib.util
import os
import sys


def completion(parser: argparse.ArgumentParser, shell: str) -> int:
    """Print a script for `shell`, made from `parser`; the exit code."""
    if importlib.util.find_spec("shtab") is None:
        sys.stderr.write("lmtp-server: shtab is not installed: pip install 'lmtp-proto[cli]'\n")
        return os.EX_CONFIG
    import shtab

    sys.stdout.write(shtab.complete(parser, shell=shell))
    return os.EX_OK
