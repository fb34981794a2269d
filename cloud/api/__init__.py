"""The REST API, version 1. One router a file; answers are the models in `models.py`."""
