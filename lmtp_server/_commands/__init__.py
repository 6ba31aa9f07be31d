"""The commands: a module for what each `lmtp-server X` does.

The invariant: a module is imported when its command is called, never before, so nothing is
exported here.
"""

__all__: list[str] = []
