"""Let ``python -m vtg`` do what ``vtg`` does."""

from vtg.cli.main import main

main()
