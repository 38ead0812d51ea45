"""Searching files: how long it takes, and whether what is known to be there is found."""
