from ups.evaluation.predictor import load as load

__version__: str
