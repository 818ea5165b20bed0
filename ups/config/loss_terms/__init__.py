"""Settings of terms beside the operator's loss, one file each; formulas have the same names in `ups/losses/terms`."""
