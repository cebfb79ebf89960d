"""Reading a finished store."""
