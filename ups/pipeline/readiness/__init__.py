"""Is this machine ready: facts, what is found in them, and trying a run before it is made."""
