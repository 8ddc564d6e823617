"""A trained network in use: embeddings, search, index, galleries, export."""
