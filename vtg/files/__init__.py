"""Files that appear whole or not at all, locks between processes, content hashes, and what paths lead to."""
