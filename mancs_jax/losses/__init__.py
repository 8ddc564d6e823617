"""Losses of the three tasks: ranking with curriculum sampling, classification, attention (sections 3.3 to 3.6)."""
