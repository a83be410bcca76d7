"""Download an artifact from its mirrors into its part file, until that is complete and verified."""
