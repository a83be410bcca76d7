"""What the packager and the agent share. Pure: the standard library and yaml, no effects, nothing else of ours."""
