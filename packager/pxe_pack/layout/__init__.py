"""A layout that was exported: what it holds, what it boots, other ways to serve it, and how it moves."""
