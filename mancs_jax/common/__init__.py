"""Writing files, fingerprints, and facts about the machine and its processes."""
