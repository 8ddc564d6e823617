"""A trained network in use: embeddings, search, index, galleries, export. It may import all but the verbs and `cli`."""
