"""Messages to people about a run: what is told, through which channel, and what came of it."""
