"""What ``optiscope watch`` puts before a script: nothing until the script imports torch."""

from __future__ import annotations

__all__ = ["SITECUSTOMIZE"]

SITECUSTOMIZE = '''\
"""Written by `optiscope watch`: attaches a watch once torch has been imported."""
import importlib.abc
import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


class _Loader(importlib.abc.Loader):
    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        try:
            from optiscope.integrations.automatic import install
        except ImportError:
            return
        install()

    def __getattr__(self, name):
        return getattr(self.loader, name)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != HERE]
_mine = sys.modules.pop("sitecustomize", None)
try:  # the one that would have run
    import sitecustomize
except ImportError:
    if _mine is not None:
        sys.modules["sitecustomize"] = _mine
'''
