"""A classifier of scikit-learn. With --autolog its params, its scores and the model are in the run, and this file knows nothing of it."""

import os

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import classification_report
from sklearn.model_selection import train_test_split

x, y = load_digits(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(x / 16, y, test_size=0.25, random_state=0, stratify=y)
model = LogisticRegression(max_iter=500).fit(train_x, train_y)
print(f"accuracy {model.score(test_x, test_y):.4f}")

report = os.path.join(os.environ.get("PLINTH_OUTPUT_DIR", "."), "report.txt")
with open(report, "w") as file:
    file.write(classification_report(test_y, model.predict(test_x)))
