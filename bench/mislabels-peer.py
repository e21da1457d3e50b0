"""cleanlab on out-of-fold probabilities from files: `python mislabels-peer.py JOB.json` prints {"answers": [...], "version": ...}.

JOB is a list of {probabilities: path of float32 [n, classes], classes, labels}. For each the answer ranks the rows by both of cleanlab's label quality
scores, the most suspicious first, and counts what its filter would name.
"""
import json
import sys
import warnings

import numpy as np

warnings.filterwarnings("ignore")
import cleanlab
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

answers = []
for job in json.load(open(sys.argv[1])):
    labels = np.array(job["labels"])
    probabilities = np.fromfile(job["probabilities"], dtype=np.float32).reshape(-1, job["classes"]).astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rank = lambda method: np.argsort(get_label_quality_scores(labels, probabilities, method=method), kind="stable").tolist()
    answers.append(
        {
            "selfConfidence": rank("self_confidence"),
            "normalisedMargin": rank("normalized_margin"),
            "found": int(find_label_issues(labels, probabilities).sum()),
        }
    )
print(json.dumps({"answers": answers, "version": cleanlab.__version__}))
