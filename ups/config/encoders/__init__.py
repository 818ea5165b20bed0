"""Encoders: settings of each kind, in a file of its own; `ups/models/encoders` has what they are the settings of."""
