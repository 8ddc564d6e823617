"""Market-1501's official evaluation, image by image."""

import numpy as np


def official_evaluation(distances, query_pid, query_camid, gallery_pid, gallery_camid):
    """Walks each sorted row from the front, as the official script does; float64, all Python."""
    average_precisions, plains, inverse_penalties, cmcs = [], [], [], []
    for row, pid, camid in zip(distances, query_pid, query_camid, strict=True):
        index = sorted(range(len(row)), key=lambda image: (row[image], image))
        good = {i for i in index if gallery_pid[i] == pid and gallery_camid[i] != camid}
        own_view = {i for i in index if gallery_pid[i] == pid and gallery_camid[i] == camid}
        junk = own_view | {i for i in index if gallery_pid[i] == -1}
        cmc, average_precision, plain = np.zeros(50), 0.0, 0.0
        old_recall, old_precision, found, rank, last = 0.0, 1.0, 0, 0, None
        for image in index:
            if image in junk or found == len(good):
                continue
            rank += 1
            if image in good:
                found, last = found + 1, rank
                cmc[rank - 1 :] = 1
                plain += found / rank / len(good)
            recall, precision = found / len(good), found / rank
            average_precision += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        average_precisions.append(average_precision)
        plains.append(plain)
        inverse_penalties.append(len(good) / last if good else 0.0)
        cmcs.append(cmc)
    return {
        "mAP": np.mean(average_precisions),
        "mAP_plain": np.mean(plains),
        "mINP": np.mean(inverse_penalties),
        "cmc": np.mean(cmcs, axis=0),
        "num_queries": len(query_pid),
        "num_matched_queries": int(np.sum(np.array(inverse_penalties) > 0)),
    }
