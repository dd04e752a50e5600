"""Hostile inputs, kills and full disks: `python -m tests.hostile --out FOLDER` runs them all and prints a table.

Each case runs the real entry point in a process of its own, forked from one that has imported everything, as a user
without rights, with a limit on time and memory, and is judged by what a user would see: it worked, or one line says
what is wrong with which file. What else a case did (another file opened, a file written elsewhere, a contact to the
network, a process left behind) is seen by audit hooks, inotify and, for a sample, by strace.
"""
