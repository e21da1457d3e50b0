"""cleanlab on features and labels from files: `python mislabels-peer.py JOB.json` prints {"ranking": {...}, "found": n, "versions": {...}}.

JOB holds features (path of float32 [n, width]), width, labels, folds (one number a row) and c. The out-of-fold probabilities are those of scikit-learn's
logistic regression on standardised features, on the same folds that Plinth is given.
"""
import json
import sys
import warnings

import numpy as np

warnings.filterwarnings("ignore")
import cleanlab
import sklearn
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

job = json.load(open(sys.argv[1]))
features = np.fromfile(job["features"], dtype=np.float32).reshape(-1, job["width"])
answers = []
for labels, folds in zip(job["labels"], job["folds"]):
    labels, folds = np.array(labels), np.array(folds)
    probabilities = np.zeros((len(labels), labels.max() + 1))
    for held in np.unique(folds):
        learned = folds != held
        scaler = StandardScaler().fit(features[learned])
        head = LogisticRegression(C=job["c"], max_iter=300, tol=1e-4).fit(scaler.transform(features[learned]), labels[learned])
        probabilities[np.ix_(~learned, head.classes_)] = head.predict_proba(scaler.transform(features[~learned]))
    rank = lambda method: np.argsort(get_label_quality_scores(labels, probabilities, method=method)).tolist()
    answers.append(
        {
            "selfConfidence": rank("self_confidence"),
            "normalisedMargin": rank("normalized_margin"),
            "found": int(find_label_issues(labels, probabilities).sum()),
        }
    )
print(json.dumps({"answers": answers, "versions": {"cleanlab": cleanlab.__version__, "sklearn": sklearn.__version__}}))
