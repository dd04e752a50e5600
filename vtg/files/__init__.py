"""Write files atomically, lock files between processes, hash content, and classify paths."""
