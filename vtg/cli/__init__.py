"""The command line `vtg`.

Arguments come in; results go to standard output (one JSON document with `--json`), messages and progress to standard
error, and errors become one line with exit status 1 (2 for wrong usage). `main` runs the program and has the small
commands; `search`, `clips`, `library`, `extract`, `research` (score and evaluate), `train` and `page` define the
others; `options` holds shared options and `console` the output functions. All commands call the Python API.
"""
