"""Download one artifact from its mirrors into a part file, and verify its bytes."""
