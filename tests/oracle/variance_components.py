"""REML estimates of variance components on a balanced design, for tests/fixtures/variance_components.json.

In a balanced design without negative estimates, the analysis of variance gives the same figures.

    python tests/oracle/variance_components.py > tests/fixtures/variance_components.json
"""

import json
import warnings

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf

STRATEGIES, WORDINGS, SEEDS, QUESTIONS = 3, 3, 3, 12
rng = np.random.default_rng(5)
strategy = rng.normal(0, 0.2, STRATEGIES)
wording = rng.normal(0, 0.06, (STRATEGIES, WORDINGS))
seed = rng.normal(0, 0.05, (STRATEGIES, WORDINGS, SEEDS))
question = rng.normal(0, 0.2, QUESTIONS)
rest = rng.normal(0, 0.1, (STRATEGIES, WORDINGS, SEEDS, QUESTIONS))
scores = 0.5 + strategy[:, None, None, None] + wording[:, :, None, None] + seed[..., None] + question + rest
scores = scores.round(4)

rows = [
    {"y": scores[s, w, r, q], "s": s, "w": f"{s}.{w}", "r": f"{s}.{w}.{r}", "q": q, "all": 0}
    for s, w, r, q in np.ndindex(scores.shape)
]
factors = {"strategy": "0 + C(s)", "wording": "0 + C(w)", "seed": "0 + C(r)", "question": "0 + C(q)"}
warnings.simplefilter("ignore")
model = smf.mixedlm("y ~ 1", pd.DataFrame(rows), groups="all", vc_formula=factors)
fit = model.fit(reml=True, method=["lbfgs", "powell"])
names = model.exog_vc.names
variances = {name: float(value) for name, value in zip(names, fit.vcomp)}
variances["rest"] = float(fit.scale)
print(json.dumps({"scores": scores.tolist(), "reml": variances}))
