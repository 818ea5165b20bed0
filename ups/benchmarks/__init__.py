"""What is measured against what: the classical references and the measurements, without a command line."""
