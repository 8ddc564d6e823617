"""The three tasks: ranking with curriculum sampling, classification, attention (paper sections 3.3 to 3.6)."""
