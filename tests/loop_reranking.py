"""Re-ranking as the authors' MATLAB computes it, image by image."""

import numpy as np


def by_loops(query, gallery, k1, k2, weight):
    """Equations 1 to 12 of the paper as the authors' MATLAB runs them: dense, image by image, float64."""
    points = np.concatenate([query, gallery]).astype(np.float64)
    return from_squared(np.sum((points[:, None] - points[None]) ** 2, axis=2), len(query), k1, k2, weight)


def from_squared(original, num_queries, k1, k2, weight):
    """The same from the squared distances of all pairs, queries first."""
    number = len(original)
    initial_rank = np.argsort(original, axis=1, kind="stable")
    original = original / original.max(axis=1, keepdims=True)

    def reciprocal(image, k):
        return [j for j in initial_rank[image, :k] if image in initial_rank[j, :k]]

    half = int(np.floor((k1 + 1) / 2 + 0.5))  # MATLAB rounds a half up
    encoding = np.zeros((number, number))
    for i in range(number):
        mine = reciprocal(i, k1 + 1)
        expanded = set(mine)
        for candidate in mine:
            theirs = reciprocal(candidate, half)
            if len(set(mine) & set(theirs)) > 2 / 3 * len(theirs):
                expanded |= set(theirs)
        members = sorted(expanded)
        closeness = np.exp(-original[i, members])
        encoding[i, members] = closeness / closeness.sum()
    encoding = np.stack([encoding[initial_rank[i, :k2]].mean(axis=0) for i in range(number)])
    jaccard = np.zeros((num_queries, number - num_queries))
    for i in range(num_queries):
        for j in range(number - num_queries):
            least = np.minimum(encoding[i], encoding[num_queries + j]).sum()
            jaccard[i, j] = 1 - least / (2 - least)
    return (1 - weight) * jaccard + weight * original[:num_queries, num_queries:]
