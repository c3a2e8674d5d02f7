"""What the end-to-end tests have in common: a stack of Tally's own processes, clients, and waiting."""
