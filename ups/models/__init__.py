"""Networks: plain tensors in, plain tensors out. Nothing here reads a configuration except `build`."""
