"""What a run tells: the journal, the state and its file, systemd, the console, the report."""
