"""The stage graph, the start of stage processes, and the verdict on how each ended. Imports no torch."""
