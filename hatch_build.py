"""Compiles protocol and store to C for a wheel of one platform; otherwise pure Python is built.

Compiled is what every octet, every command and every copy of a message goes through. What embedders
inherit from is not, for an interpreted class cannot inherit from a compiled one; nor is what runs
once a connection, or once a mailbox. Each module is in the wheel as Python too.

In what is compiled no named function lies in another, where it runs more than once: the two would
hold each other, with all that they know, until the garbage collector comes by.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_MODULES: Final = {
    "lmtp_proto": (
        *("_address", "_attributes", "_buffer", "_client", "_command", "_content"),
        *("_conversation", "_effects", "_errors", "_events", "_extensions", "_limits"),
        *("_observation", "_parameters", "_policy", "_quota", "_reply", "_server", "_state"),
        "_xtext",
    ),
    "mailstore": (
        *("_batch", "_copies", "_files", "_header", "_line_ends", "_links", "_maildir"),
        *("_one_shot", "_outcome", "_spool", "_store", "_sync", "_together", "_trace"),
        "_unnamed",
    ),
}
# In a process of its own, for mypy and setuptools look at where they are and what they are told.
# The linters' configuration has plugins that are not there when a wheel is built, nor is Redis.
_COMPILE: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup
files = sys.argv[1:]
sys.argv[1:] = ["build_ext", "--inplace"]
options = ["--config-file=", "--strict", "--ignore-missing-imports"]
setup(ext_modules=mypycify([*options, *files], opt_level="3"))
"""


class Compile(BuildHookInterface[Any]):
    """The build hook."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile in a copy, below build/, and have the outcome put into the wheel."""
        if version == "editable":
            return
        folder = Path(self.root, "build", "mypyc")
        shutil.rmtree(folder, ignore_errors=True)
        for package in _MODULES:
            shutil.copytree(Path(self.root, package), folder / package)
        files = [
            os.path.join(package, f"{module}.py")
            for package, modules in _MODULES.items()
            for module in modules
        ]
        subprocess.run([sys.executable, "-c", _COMPILE, *files], cwd=folder, check=True)
        for extension in (*folder.glob("*.so"), *folder.glob("*/*.so")):
            build_data["force_include"][str(extension)] = str(extension.relative_to(folder))
        build_data["infer_tag"] = True
        build_data["pure_python"] = False
