"""What a run reports, and where: the journal, the state file, systemd, the console, the webhook."""
