"""Settings of the ways to make one forecast of scored candidates, one file each; the ways are in `ups/evaluation/selections`."""
