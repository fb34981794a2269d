"""Trust in what is offered for installation: TUF, by python-tuf, behind rules of our own that survive a loss of files."""
