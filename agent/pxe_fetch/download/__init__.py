"""The engine: one artifact, from its mirrors into a part file, until its bytes are verified."""
