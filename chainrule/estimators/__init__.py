"""Estimators for scikit-learn, whose `fit` is a job: `from chainrule.estimators import ChainruleRegressor`.

They need the extra `sklearn`; nothing else of this package imports scikit-learn.
"""

try:
    from chainrule.estimators.network import ChainruleClassifier, ChainruleRegressor
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "sklearn":
        raise
    raise ImportError("chainrule.estimators needs scikit-learn: pip install 'chainrule[sklearn]'") from None

__all__ = ["ChainruleClassifier", "ChainruleRegressor"]
