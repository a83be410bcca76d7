"""PE programs: headers and sections, their signatures and certificates, SBAT, and what is built into a shim."""
