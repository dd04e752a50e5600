"""The command line: one module a family of commands; what it can do, the Python API can do."""
