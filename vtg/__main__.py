"""Lets ``python -m vtg`` do what ``vtg`` does."""

from vtg.cli import main

main()
