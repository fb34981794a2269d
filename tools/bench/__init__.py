"""`gudgeon bench`: ratios to a floor that is measured in turn with the subject, in the same process."""
