"""`gudgeon demo`: the whole line on one machine."""
