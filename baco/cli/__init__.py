"""The command `baco`: what a user types, what is shown, and with which status a process ends."""
