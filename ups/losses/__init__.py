"""Formulas that training minimises and evaluation reports. Each has this one home."""
