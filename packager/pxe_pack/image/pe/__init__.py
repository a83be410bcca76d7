"""PE programs: headers and sections, and their Authenticode signatures."""
