"""The pages, one a module, each drawn by its `show`."""
