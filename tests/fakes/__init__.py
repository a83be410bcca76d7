"""Peers that misbehave on purpose, byte for byte, and what tests need to talk to them."""
