"""Train the bundled CLIP and head of the demo world; `tools.make_demo` runs them in order."""
