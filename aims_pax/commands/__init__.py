"""One module for each command a user types, by that name."""
