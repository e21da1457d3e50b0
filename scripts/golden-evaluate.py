"""Writes test/golden/evaluate.json: what scikit-learn, SciPy and statsmodels say about small, fixed problems.

    python -m venv venv && venv/bin/pip install scikit-learn statsmodels && venv/bin/python scripts/golden-evaluate.py

Everything is float64. The features of the logistic regression are stored as float32 values, which both sides then read alike.
"""

import json
import pathlib

import numpy as np
import scipy
import sklearn
import statsmodels
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support
from sklearn.preprocessing import StandardScaler
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

random = np.random.default_rng(20261105)


def intervals():
    pairs = [(0, 1), (1, 1), (0, 10), (1, 10), (5, 10), (10, 10), (81, 263), (15, 148), (0, 20), (1, 29), (260, 300), (9999, 10000)]
    return {
        "wilson": [[k, n, c, *proportion_confint(k, n, alpha=1 - c, method="wilson")] for k, n in pairs for c in (0.8, 0.95, 0.99)],
        "mcnemar": [[b, c, mcnemar([[5, b], [c, 5]], exact=True).pvalue] for b, c in [(12, 2), (10, 0), (0, 5), (30, 20), (700, 600), (3, 3)]],
        "normalQuantile": [[p, norm.ppf(p)] for p in (1e-20, 1e-10, 0.025, 0.1, 0.5, 0.6, 0.9, 0.975, 0.995, 0.999999)],
    }


def metrics():
    classes = 5  # class 3 has no pictures, class 4 is never answered
    truth = random.choice([0, 1, 2, 4], size=60, p=[0.4, 0.3, 0.2, 0.1])
    answer = np.where(random.random(60) < 0.7, truth, random.integers(0, 4, 60))
    answer[answer == 4] = 2
    labels = list(range(classes))
    precision, recall, f1, n = precision_recall_fscore_support(truth, answer, labels=labels, zero_division=np.nan)
    return {
        "classes": classes,
        "truth": truth.tolist(),
        "answer": answer.tolist(),
        "confusion": confusion_matrix(truth, answer, labels=labels).tolist(),
        "accuracy": accuracy_score(truth, answer),
        "balancedAccuracy": balanced_accuracy_score(truth, answer),
        "n": n.tolist(),
        "precision": [None if np.isnan(x) else x for x in precision],
        "recall": [None if np.isnan(x) else x for x in recall],
        "f1": [None if n[k] == 0 else x for k, x in enumerate(f1)],
    }


def temperature():
    classes = 4
    truth = random.integers(0, classes, 80)
    logits = 6 * random.normal(size=(80, classes))
    logits[np.arange(80), truth] += 8
    logits = np.round(logits, 3)

    def loss(log_temperature):
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(80), truth].mean()

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-12})
    return {"classes": classes, "truth": truth.tolist(), "logits": logits.tolist(), "temperature": np.exp(best.x), "loss": best.fun}


def logistic_regression(n, features, classes, cs, class_weight=None):
    centres = random.normal(size=(classes, features))
    truth = np.concatenate([np.arange(classes), random.integers(0, classes, n - classes)])
    x = centres[truth] * 0.7 + random.normal(size=(n, features))
    x = np.round(x * random.uniform(0.2, 5, features) + random.normal(size=features) * 3, 2).astype(np.float32)
    x[:, 1] = 2.5  # a feature that says nothing
    scaler = StandardScaler().fit(x.astype(np.float64))
    fits = []
    for c in cs:
        # for two classes scikit-learn fits their difference d alone, with ½|d|² where two rows ±d/2 together pay ¼|d|²
        model = LogisticRegression(C=2 * c if classes == 2 else c, class_weight=class_weight, tol=1e-10, max_iter=20000, solver="lbfgs")
        model.fit(scaler.transform(x.astype(np.float64)), truth)
        coefficients, intercepts = model.coef_, model.intercept_
        if classes == 2:
            coefficients, intercepts = np.vstack([-coefficients / 2, coefficients / 2]), np.concatenate([-intercepts / 2, intercepts / 2])
        weight = coefficients / scaler.scale_
        bias = intercepts - weight @ scaler.mean_
        fits.append(
            {
                "c": c,
                "weight": weight.round(7).tolist(),
                # adding one number to every bias changes nothing
                "bias": (bias - bias.mean()).round(7).tolist(),
                "probabilities": model.predict_proba(scaler.transform(x.astype(np.float64)))[:10].round(7).tolist(),
            }
        )
    return {"n": n, "features": features, "classes": classes, "classWeights": class_weight, "x": x.astype(float).round(2).ravel().tolist(), "truth": truth.tolist(), "fits": fits}


golden = {
    "made with": f"scikit-learn {sklearn.__version__}, SciPy {scipy.__version__}, statsmodels {statsmodels.__version__}, NumPy {np.__version__}",
    "intervals": intervals(),
    "metrics": metrics(),
    "temperature": temperature(),
    "logisticRegression": [
        logistic_regression(60, 12, 4, [0.001, 0.03, 1.0]),
        logistic_regression(20, 40, 3, [0.01, 1.0]),
        logistic_regression(70, 8, 3, [0.01, 0.3], "balanced"),
        logistic_regression(50, 6, 2, [0.01, 1.0]),
    ],
}
path = pathlib.Path(__file__).parent.parent / "test" / "golden" / "evaluate.json"
path.parent.mkdir(exist_ok=True)
path.write_text(json.dumps(golden) + "\n")
print(path, path.stat().st_size, "bytes")
