"""Work on files beside the chain: generate, fetch, check and score them, each in a process of its own."""
