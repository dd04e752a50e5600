"""The page: what `vtg ui` serves. What it can do, the Python API can do; here is only how it looks and is reached."""
