"""Which library is this paragraph from? Text classification by scikit-learn's pipeline."""

import inspect
import sys

import numpy as np
import pandas as pd
import scipy.signal
import scipy.stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression  # or from fastsoftmax.linear_model
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline

texts, labels = [], []
for library in (np, pd.DataFrame, scipy.signal, scipy.stats):
    for _, thing in inspect.getmembers(library, callable):
        paragraphs = (inspect.getdoc(thing) or "").split("\n\n")
        texts += paragraphs
        labels += [library.__name__] * len(paragraphs)
if len(sys.argv) > 1:  # every so many
    texts, labels = texts[:: int(sys.argv[1])], labels[:: int(sys.argv[1])]

train, test, train_labels, test_labels = train_test_split(texts, labels, random_state=0)
pipeline = Pipeline(
    [
        ("tfidf", TfidfVectorizer(min_df=2)),
        ("classifier", LogisticRegression(max_iter=1000, tol=1e-6)),
    ]
)
search = GridSearchCV(pipeline, {"classifier__C": [0.1, 1, 10]}, cv=3)
search.fit(train, train_labels)

best, score = search.best_params_, search.best_score_
probabilities = search.predict_proba(test)
accuracy = search.score(test, test_labels)
print(f"{len(texts)} paragraphs, best {best} with {score:.4f}, test accuracy {accuracy:.4f}")
