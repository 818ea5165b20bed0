"""Settings of the operators, one file each; networks have the same names in `ups/models/operators`."""
