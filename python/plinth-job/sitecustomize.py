"""Found before any other sitecustomize because its folder leads PYTHONPATH; runs the one that it hides as well."""

import sys


def _hidden():
    import importlib.machinery
    import os

    here = os.path.dirname(os.path.abspath(__file__))
    rest = [path for path in sys.path if os.path.abspath(path or ".") != here]
    return importlib.machinery.PathFinder.find_spec("sitecustomize", rest)


try:
    import plinth_job  # noqa: F401
except Exception as error:
    sys.stderr.write("plinth: %s\n" % error)

_spec = _hidden()
if _spec is not None and _spec.loader is not None:
    # in the place of this one, as if it had been found first; its errors are its own
    import importlib.util

    _module = importlib.util.module_from_spec(_spec)
    sys.modules["sitecustomize"] = _module
    _spec.loader.exec_module(_module)
