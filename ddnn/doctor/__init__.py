"""`ddnn doctor`: whether a node can do its work here, and what to do where it cannot.

Each check is a function that looks at one thing and returns one `Finding` (or some that belong
together). None of them raises for what it finds.
"""
