"""Files, fingerprints, and facts about the machine and its processes."""
