"""The report of a run: figures drawn when it is evaluated, and one self-contained page."""
