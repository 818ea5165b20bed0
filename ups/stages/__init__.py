"""One module per stage: what it reads, what it wires together, what it writes.

`python -m ups.stages NAME --work DIR` runs one, in a process that `ups.pipeline` starts.
"""
