"""What makes a server run flows: its parts, and what is registered on it."""
