"""What a stage process needs before it can compute: ranks, randomness, records, the request."""
