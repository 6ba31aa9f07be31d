"""What is measured, and how. Run with `python -m benchmarks`; not part of the installed
distribution.

Each cell runs one server in processes of its own against a load generator in another process, and
every reply is checked: a figure taken while replies were wrong is reported as a failure, never as
a figure.
"""
