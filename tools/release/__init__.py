"""`gudgeon pack`: releases as artifacts for the update repository: runtimes and configurations."""
