"""The command line. Verbs are commands."""
