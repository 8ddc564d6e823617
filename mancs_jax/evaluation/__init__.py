"""Embeddings and labels to scores: distances, ranking, re-ranking, metrics, protocols, results."""
