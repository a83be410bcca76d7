"""Verified bytes put where they belong: files, trees, the folders they may go to, and the room for them."""
