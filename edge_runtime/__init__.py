"""The device runtime: the only Gudgeon package that a device needs. It imports no other first-party package."""

__version__ = "0.1.0"
